"""Providers: who answers, how to reach them, and the adapters that speak their wire formats.

Adapters are pure: they turn messages of `twinspan.v1` into bytes and bytes into messages. `sender` alone does I/O.
"""
