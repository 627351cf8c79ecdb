"""One worker of an embedded model, as a child process: started, told what to do, waited for, ended.

The engine above decides when there has to be one. What runs inside is `worker` or `embedder`.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from gateway.local.orders import Line

_KEPT_LINES = 5
_SOURCES = Path(__file__).absolute().parents[2]


class EngineError(Exception):
    """The embedded model cannot run; the message says what to do."""


class WorkerProcess:
    """A child process. Whoever spawned it ends it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        """Takes over a process that has just been started; use `spawn`."""
        self._process = process
        self._stdin = stdin
        self._stdout = stdout
        self._last_lines = asyncio.create_task(_read_last_lines(stderr))

    @classmethod
    async def spawn(cls, module: str = "gateway.local.worker", environment: Mapping[str, str] | None = None) -> Self:
        """Starts a process that waits for its orders.

        Args:
            module: What runs in it.
            environment: Its variables; None for those of this process.

        Raises:
            OSError: The system refuses.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            env=environment,
            cwd=_SOURCES,  # `-m` imports from there first: this gateway, not what happens to lie where the user stands
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is the gateway's to handle, which lets requests end first
        )
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("all three are pipes")
        return cls(process, process.stdin, process.stdout, process.stderr)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def load(self, orders: Line, timeout_seconds: float) -> str:
        """Hands over the orders, and returns the worker's address once it answers.

        Raises:
            EngineError: It died, or took longer than `timeout_seconds`. In the latter case it goes on until it is ended.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                with contextlib.suppress(ConnectionError):  # it has died, and will say why on standard error
                    self._stdin.write(orders.to_line())
                    await self._stdin.drain()
                line = await self._stdout.readline()
        except TimeoutError:
            raise EngineError(
                f"It has not loaded within {timeout_seconds:g} s. Try again when the machine is less busy, or configure a provider."
            ) from None
        if not line.endswith(b"\n"):
            how = await self.wait()
            said = " / ".join(await asyncio.shield(self._last_lines)) or "it said nothing"
            raise EngineError(
                f"Its process {how} while it loaded ({said}). Install it again with `make install`, or configure a provider."
            )
        return str(json.loads(line)["url"])

    async def wait(self) -> str:
        """Waits until the process has ended, and returns how, as a verb phrase.

        Its last words are left out: once it serves, they may quote what clients said.
        """
        code = await self._process.wait()
        self._stdin.close()
        return f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"

    async def end(self, timeout_seconds: float) -> None:
        """Ends the process, by force after `timeout_seconds` or on cancellation, and waits until it is gone. Idempotent."""
        try:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_seconds):
                        await self._process.wait()
        finally:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            self._stdin.close()
            await self._process.wait()
            await self._last_lines


async def _read_last_lines(stream: asyncio.StreamReader) -> list[str]:
    """Reads to the end, so that the pipe never fills, and returns the last lines."""
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the reader's buffer: nothing that a person would read
            continue
        if not line:
            return list(lines)
        if text := line.decode(errors="replace").strip():
            lines.append(text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
