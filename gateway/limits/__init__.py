"""Limits: what a key may ask for in a minute and at a time."""
