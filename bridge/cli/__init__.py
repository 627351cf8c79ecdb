"""The command `twinspan`: starts the gateway's parts, checks configurations, and talks to a gateway from a terminal.

This package alone may import `gateway.app`; everything else of the bridge knows only the generated stubs.
"""

from bridge.cli.main import main

__all__ = ["main"]
