"""What the bridge tells about itself: a span and a count for each HTTP request."""
