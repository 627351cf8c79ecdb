"""Requests that are forwarded to a provider as they are: what may be forwarded, and the road of one request."""
