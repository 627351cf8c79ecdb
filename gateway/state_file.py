"""A small file for what should outlive the process but may be a moment old: written behind, whole, and in one step.

Above are those whose state it holds; below is the disk, used in threads. What must be on disk before an answer belongs into
`gateway.database` instead.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_DELAY_SECONDS = 1.0
"""How long changes are gathered before they are written, and so how much of them a crash may cost."""


class StateFile:
    """One such file. It is used from one event loop, and closed by whoever made it."""

    def __init__(self, path: Path, contents: Callable[[], Mapping[str, Any]], *, delay_seconds: float = _DELAY_SECONDS) -> None:
        """Makes it known; nothing is read or written yet.

        Args:
            path: Where it is. Its directory is made when something is written.
            contents: Returns what is to be written, as JSON can hold it. It is called on the event loop.
            delay_seconds: How long changes are gathered.
        """
        self._path = path
        self._contents = contents
        self._delay_seconds = delay_seconds
        self._task: asyncio.Task[None] | None = None
        self._changed = False

    async def read(self) -> Mapping[str, Any]:
        """Returns what was written last; nothing if there is nothing of use, which is in the log unless there was no file."""
        try:
            found = json.loads(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("%s cannot be read, so what it held is forgotten: %s", self._path, error)
            return {}
        return found if isinstance(found, dict) else {}

    def changed(self) -> None:
        """Has the contents written soon."""
        self._changed = True
        if self._task is None:
            self._task = asyncio.create_task(self._write_behind())

    async def close(self) -> None:
        """Writes what has changed and is not written yet."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._write()

    async def _write_behind(self) -> None:
        while self._changed:
            await asyncio.sleep(self._delay_seconds)
            await self._write()
        self._task = None

    async def _write(self) -> None:
        if not self._changed:
            return
        self._changed = False
        text = json.dumps(self._contents(), indent=1)
        writing = asyncio.ensure_future(asyncio.to_thread(self._replace, text))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.gather(writing, return_exceptions=True)  # two threads must not write at once
            raise
        except OSError as error:
            _log.error("%s cannot be written: %s", self._path, error.strerror)

    def _replace(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            new.touch(mode=0o600)
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
