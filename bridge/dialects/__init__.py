"""Dialects: each turns one vendor's JSON into the messages of `twinspan.v1`, and those messages back into that vendor's JSON.

A dialect knows bytes and messages and nothing else: no I/O, no transport, no clock.
"""
