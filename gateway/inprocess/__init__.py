"""The in-process channel, by which the bridge reaches the core when both share a process."""

from gateway.inprocess.channel import InProcessChannel

__all__ = ["InProcessChannel"]
