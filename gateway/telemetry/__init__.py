"""What the core tells about itself: spans, counts, logs."""
