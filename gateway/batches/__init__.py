"""Batches: files of requests that the gateway answers in the background, with the rights of the key that asked for it."""
