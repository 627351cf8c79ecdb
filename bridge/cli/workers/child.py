"""One worker, as the supervisor has it: a process that was started, is spoken to, and ends."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from bridge.cli.problem import Problem
from bridge.cli.workers.messages import (
    All,
    AskReload,
    Begin,
    Drain,
    Failed,
    Gather,
    Link,
    Ready,
    Reload,
    Reloaded,
    Tell,
    Told,
)

T = TypeVar("T")

_MODULE: Final = "bridge.cli.workers.worker"
_START_SECONDS: Final = 120.0
_RELOAD_SECONDS: Final = 60.0


class CrashError(Exception):
    """A worker ended at its start without a word."""


class Asked(Protocol):
    """What a worker may ask its supervisor for."""

    def gather(self, asker: "Child", own: Told) -> Awaitable[All]:
        """Returns what all workers have counted."""

    def reload(self) -> Awaitable[Reloaded]:
        """Has all workers read the configuration again."""


class Child:
    """A worker's process.

    Attributes:
        last: What it told last of its counts; None until it has told anything.
        leaving: Whether it was told to end.
        ready: What it says of itself once it serves.
    """

    def __init__(self, process: asyncio.subprocess.Process, link: Link, asked: Asked) -> None:
        """Takes over a process that has just been started; use `started`."""
        self.last: Told | None = None
        self.leaving = False
        self.ready: Ready | None = None
        self._process = process
        self._link = link
        self._asked = asked
        self._first: asyncio.Future[Ready | Failed | None] = asyncio.get_running_loop().create_future()
        self._ids = itertools.count(1)
        self._telling: dict[int, asyncio.Future[None]] = {}
        self._reloading: dict[int, asyncio.Future[Reloaded | None]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def started(cls, begin: Begin, sockets: Sequence[socket.socket], asked: Asked) -> "Child":
        """Starts a worker, and returns once it serves.

        Args:
            begin: What it is told, except for its sockets.
            sockets: What it listens on for REST.
            asked: Answers its questions.

        Raises:
            Problem: It cannot serve, for a reason that the user can put right.
            CrashError: It ended without a word, or said nothing for too long.
        """
        ours, theirs = socket.socketpair()
        try:
            # A process of its own and no fork, for gRPC's threads do not survive one. `-P`: no module from where the user stands.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                _MODULE,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *(one.fileno() for one in sockets)),
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's to hand on
            )
        except OSError as error:
            ours.close()
            raise Problem(f"A worker cannot be started: {error}. Free some memory, or serve with fewer workers.") from error
        finally:
            theirs.close()
        child = cls(process, await Link.over(ours), asked)
        try:
            await child._begin(begin)
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self) -> str:
        """Returns once it has ended and all that it said was heard: how it ended, as a verb phrase."""
        code = await self._process.wait()
        await asyncio.wait({self._listening})  # which a caller that waits no longer must not cancel
        self._link.close()
        return f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"

    def drain(self, *, hand_over: bool) -> None:
        """Tells it to let requests under way end, and then to end itself."""
        self.leaving = True
        self._link.send(Drain(hand_over=hand_over))

    async def kill(self) -> None:
        """Ends it at once."""
        self.leaving = True
        self.kill_now()
        await self.wait()

    def kill_now(self) -> None:
        """Ends it at once, and waits for nothing."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def tell(self, seconds: float) -> bool:
        """Has it tell what it has counted, which is in `last` then; tells whether it did in time."""
        number = next(self._ids)
        told = self._telling[number] = asyncio.get_running_loop().create_future()
        self._link.send(Tell(number))
        try:
            async with asyncio.timeout(seconds):
                await told
        except TimeoutError:
            return False
        finally:
            self._telling.pop(number, None)
        return True

    async def reload(self) -> Reloaded | None:
        """Has it read the configuration again, and returns what came of it; None if it does not say."""
        number = next(self._ids)
        done = self._reloading[number] = asyncio.get_running_loop().create_future()
        self._link.send(Reload(number))
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                answer: Reloaded | None = await done
        except TimeoutError:
            return None
        finally:
            self._reloading.pop(number, None)
        return answer

    async def _begin(self, begin: Begin) -> None:
        self._link.send(begin)
        try:
            async with asyncio.timeout(_START_SECONDS):
                first = await self._first
        except TimeoutError:
            raise CrashError(f"did not serve within {_START_SECONDS:g} s") from None
        if isinstance(first, Failed):
            raise Problem(first.message, first.exit_code)
        if first is None:
            raise CrashError(await self.wait())
        self.ready = first

    async def _listen(self) -> None:
        while (message := await self._link.receive()) is not None:
            match message:
                case Ready() | Failed() if not self._first.done():
                    self._first.set_result(message)
                case Told():
                    self.last = message
                    _settle(self._telling.get(message.id), None)
                case Gather():
                    self.last = message.own
                    self._answer(self._gather(message))
                case AskReload():
                    self._answer(self._ask_reload(message))
                case Reloaded():
                    _settle(self._reloading.get(message.id), message)
        _settle(self._first, None)
        for told in self._telling.values():  # it has ended, and what it told last stands
            _settle(told, None)
        for done in self._reloading.values():
            _settle(done, None)

    def _answer(self, answering: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(answering)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _gather(self, message: Gather) -> None:
        found = await self._asked.gather(self, message.own)
        self._link.send(All(message.id, found.told, found.standing))

    async def _ask_reload(self, message: AskReload) -> None:
        done = await self._asked.reload()
        self._link.send(Reloaded(message.id, done.mistakes, done.sources, done.warnings, done.processes))


def _settle(future: "asyncio.Future[T] | None", result: T) -> None:
    if future is not None and not future.done():
        future.set_result(result)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
