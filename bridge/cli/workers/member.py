"""The supervisor, as a worker has it: asks it for what all have counted, tells it its own counts, and does what it says.

`Member` is the `gateway.siblings.Siblings` of a worker's core, and the exposition of its bridge.
"""

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from prometheus_client import CollectorRegistry

from bridge.cli.workers.hub import http_counts
from bridge.cli.workers.messages import All, AskReload, Drain, Gather, Link, Reload, Reloaded, Tell, Told
from bridge.telemetry.metrics import HttpMetrics
from gateway import app
from gateway.app import Core, Gathered, Reloading, Standing

T = TypeVar("T")

_PUSH_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 2.0
_RELOAD_SECONDS: Final = 90.0
_ALONE: Final = Standing(0.0)


class Member:
    """A worker's place among the others.

    Attributes:
        stop: Set once it is to end: it was told so, or the supervisor has died.
        hands_over: Whether another worker has taken its place.
    """

    def __init__(self, link: Link) -> None:
        self.stop = asyncio.Event()
        self.hands_over = False
        self._link = link
        self._core: Core | None = None
        self._http: HttpMetrics | None = None
        self._ids = itertools.count(1)
        self._telling = asyncio.Lock()
        self._begun = asyncio.Event()
        self._gathering: dict[int, asyncio.Future[All | None]] = {}
        self._reloading: dict[int, asyncio.Future[Reloaded | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def serves(self, core: Core, http: HttpMetrics) -> None:
        """Tells of what this worker serves with, and begins to do what the supervisor says."""
        self._core, self._http = core, http
        self._begun.set()
        self._do(self._listen())
        self._do(self._push())

    async def end(self) -> None:
        """Tells what was counted for the last time, and ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tell(0)
        try:
            await self._link.flush()
        except OSError:
            return

    async def gather(self) -> Gathered:
        """See `gateway.siblings.Siblings.gather`."""
        found = await self._all()
        return Gathered([one.core for one in found.told], found.standing)

    async def reload(self) -> Reloading:
        """See `gateway.siblings.Siblings.reload`."""
        await self._begun.wait()  # a request may come in the moment before
        number = next(self._ids)
        done = self._reloading[number] = asyncio.get_running_loop().create_future()
        self._link.send(AskReload(number))
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                answer = await done
        except TimeoutError:
            answer = None
        finally:
            self._reloading.pop(number, None)
        if answer is None:
            return Reloading(mistakes="The process that supervises the workers does not answer. Look into its log.")
        return Reloading(answer.mistakes, answer.sources, answer.warnings, answer.processes)

    async def rendered(self, accept: str) -> tuple[bytes, str]:
        """See `bridge.telemetry.metrics.Exposition`."""
        return await asyncio.to_thread(_rendered, await self._all(), accept)

    async def _all(self) -> All:
        """Returns what all have counted. This worker's own counts are told to the supervisor with the question: see `hub`."""
        await self._begun.wait()
        number = next(self._ids)
        found = self._gathering[number] = asyncio.get_running_loop().create_future()
        async with self._telling:
            own = await self._told(0)
            self._link.send(Gather(number, own))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await found
        except TimeoutError:
            answer = None
        finally:
            self._gathering.pop(number, None)
        return answer or All(0, [own], _ALONE)

    async def _told(self, number: int, *, samples: bool = True) -> Told:
        if self._core is None or self._http is None:
            raise AssertionError("It serves.")
        http = [(*key, count) for key, count in self._http.counts().items()]
        return Told(number, await self._core.report(samples=samples), http)

    async def _push(self) -> None:
        """Tells the counts now and then, so that not much is lost with a worker that is killed."""
        loop = asyncio.get_running_loop()
        pause = _PUSH_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = loop.time()
            await self._tell(0, samples=False)
            pause = max(_PUSH_SECONDS, 50 * (loop.time() - began))  # at most a fiftieth of the time is spent on it

    async def _listen(self) -> None:
        while (message := await self._link.receive()) is not None:
            match message:
                case Tell():
                    self._do(self._tell(message.id))
                case Reload():
                    self._do(self._reload(message.id))
                case All():
                    _settle(self._gathering.get(message.id), message)
                case Reloaded():
                    _settle(self._reloading.get(message.id), message)
                case Drain():
                    self.hands_over = message.hand_over
                    self.stop.set()
        self.stop.set()
        for gathering in self._gathering.values():
            _settle(gathering, None)
        for reloading in self._reloading.values():
            _settle(reloading, None)

    async def _tell(self, number: int, *, samples: bool = True) -> None:
        async with self._telling:  # or what was counted later might be told first, and counts would fall
            self._link.send(await self._told(number, samples=samples))

    async def _reload(self, number: int) -> None:
        if self._core is not None:
            done = await self._core.reload()
            self._link.send(Reloaded(number, done.mistakes, list(done.sources), list(done.warnings), 1))

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _rendered(found: All, accept: str) -> tuple[bytes, str]:
    registry = CollectorRegistry()
    app.show_all(registry, Gathered([one.core for one in found.told], found.standing))
    return HttpMetrics(registry, http_counts(found.told)).render(accept)


def _settle(future: "asyncio.Future[T | None] | None", result: T | None) -> None:
    if future is not None and not future.done():
        future.set_result(result)
