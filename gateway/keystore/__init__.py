"""The key store: keys and teams that administrators make while the gateway runs, and the log of what they did."""
