"""Faults are met on the loop on which a gateway serves."""

from collections.abc import Callable, Mapping
from typing import Any

import uvloop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Returns what makes the tests' event loop."""
    return {"uvloop": uvloop.new_event_loop}
