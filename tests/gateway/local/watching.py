"""Watches processes and the log, and talks to an engine."""

import asyncio
import logging
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from gateway.local.engine import LocalEndpoint


def client_of(endpoint: LocalEndpoint) -> httpx.AsyncClient:
    # The engine closes a connection shortly after a stream without having said so. Each request gets its own.
    headers = {"Authorization": f"Bearer {endpoint.api_key}", "Connection": "close"}
    return httpx.AsyncClient(base_url=endpoint.base_url, headers=headers, timeout=20)


def ask(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


class ProcessWatch:
    """Knows whether a process has ended, child or not. It has to be made while the process runs."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def has_ended(self, *, within_seconds: float) -> bool:
        try:
            return bool(select.select([self._descriptor], [], [], within_seconds)[0])
        finally:
            os.close(self._descriptor)


def children() -> set[int]:
    """Returns the ids of this process's children, those among them that have ended and nobody waited for."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found |= {int(pid) for pid in (thread / "children").read_text().split()}
    return found


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.queue.put_nowait(f"{record.levelname} {record.getMessage()}")

    async def next(self) -> str:
        async with asyncio.timeout(5):
            return await self.queue.get()


@contextmanager
def engine_log() -> Iterator[_Messages]:
    """Collects what the engine logs, for tests that wait for it."""
    logger = logging.getLogger("gateway.local.engine")
    handler, level = _Messages(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
