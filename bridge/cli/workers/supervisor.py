"""The supervisor of `twinspan serve` with several workers: it serves nothing itself.

    SIGTERM, SIGINT   requests under way may end, then all end; a second one ends all at once
    SIGHUP            the configuration is checked, and then every worker takes it over in place
    SIGUSR2           every worker is replaced by a new one, which serves before the old one stops to
    a worker's death  another one takes its place
    its own death     the workers notice, and end as on SIGTERM

What workers share is started here, once: the ports, the administrator's token, the embedded models, and the state store if none is
named.
"""

import asyncio
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.cli.problem import Problem
from bridge.cli.serve import greeting
from bridge.cli.workers.child import Child, CrashError
from bridge.cli.workers.hub import Hub
from bridge.cli.workers.messages import All, Begin, Reloaded, Told
from bridge.cli.workers.ports import SharedPort
from gateway import app
from gateway.app import ConfigError, Configuration, EmbeddedStore, EmbeddedStoreError, EngineError, LocalEndpoint, LocalModels

_log = logging.getLogger(__name__)

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0
_MOST_CRASHES: Final = 5
"""How often workers may crash at their start in a row while none serves."""

_SLACK_SECONDS: Final = 15.0
"""How much longer than its drain a worker may take to end."""

_LONGEST_SOCKET_PATH: Final = 100
_MEMORY: Final = "memory://"


@dataclass(eq=False, slots=True)
class _Place:
    """The place of a worker among the others.

    Attributes:
        worker: The worker that has it; None while there is none.
        sockets: What it listens on for REST, and whoever takes its place when it hands over.
    """

    worker: Child | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Closes the sockets, so that the system shares new connections out among the other workers."""
        for one in self.sockets:
            one.close()
        self.sockets = []


async def supervise(configuration: Configuration, path: str | None, count: int) -> int:
    """Serves with so many workers until it is told to stop, and returns the exit code.

    Args:
        configuration: What holds at the start.
        path: Where it is, as it was given.
        count: How many workers.

    Raises:
        Problem: They cannot be started, or end at their start again and again.
    """
    app.configure_logging(configuration)
    async with AsyncExitStack() as stack:
        supervisor = Supervisor(path, await _shared(stack, configuration, path), count, _drain_seconds(configuration))
        stack.push_async_callback(supervisor.close)
        return await supervisor.run()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the workers share, and what is left of it at a sudden end."""

    begin: Begin
    rest: SharedPort
    directory: Path
    store: EmbeddedStore | None


async def _shared(stack: AsyncExitStack, configuration: Configuration, path: str | None) -> _Shared:
    listen = app.listen_settings(configuration)
    rest = SharedPort(listen.host, listen.port, "Stop what uses it, or set server.listen_addr or PORT.")
    stack.callback(rest.close)
    host, _, port = app.grpc_address(configuration).rpartition(":")
    advice = "Stop what uses the address, or set server.grpc_addr to another one."
    grpc = SharedPort(host.strip("[]"), int(port), advice, dual=True)
    stack.callback(grpc.close)
    directory = _private_directory()
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    config = configuration.current.config
    store: EmbeddedStore | None = None
    if config.state.url.startswith(_MEMORY):
        store = EmbeddedStore(directory)
        stack.push_async_callback(store.stop)
    local: LocalEndpoint | None = None
    try:
        if store is not None:
            await store.start()
        if app.needs_local_model(config):
            models = LocalModels()
            stack.push_async_callback(models.stop)
            local = await models.start(config.local_engine.max_sessions)
    except (EmbeddedStoreError, EngineError) as error:
        raise Problem(str(error)) from error
    begin = Begin(
        config=path,
        group=secrets.token_hex(16),
        rest_sockets=[],
        grpc_port=grpc.port,
        token=app.made_token(configuration),
        state_url=store.url if store is not None else config.state.url,
        local=local,
    )
    return _Shared(begin, rest, directory, store)


class Supervisor:
    """Keeps the workers running."""

    def __init__(self, path: str | None, shared: _Shared, count: int, drain_seconds: float) -> None:
        self._path = path
        self._shared = shared
        self._drain_seconds = drain_seconds
        self._places = [_Place() for _ in range(count)]
        self._leaving: set[Child] = set()
        self._hub = Hub(self._workers)
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._problem: Problem | None = None
        self._crashes = 0
        self._begun = False

    async def run(self) -> int:
        """Starts the workers, and serves until it is told to stop; returns the exit code.

        Raises:
            Problem: See `supervise`.
        """
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._do(self._reload_on_signal()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._do(self._replace_all()))
        starting = asyncio.create_task(self._start_all())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                self._greet()
            await stopping
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
        await self._drain_all()
        if self._problem is not None:
            raise self._problem
        return 0

    async def close(self) -> None:
        """Ends whatever still runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self._workers()))
        for place in self._places:
            place.close()

    async def gather(self, asker: Child, own: Told) -> All:
        """See `bridge.cli.workers.child.Asked`."""
        del own  # which is in `asker.last`
        return await self._hub.gather(asker)

    async def reload(self) -> Reloaded:
        """Checks the configuration, and has every worker take it over."""
        async with self._changing:
            try:
                await asyncio.to_thread(self._check)
            except ConfigError as error:
                _log.error("The configuration was not reloaded, the old one goes on. %s", error)
                return Reloaded(0, str(error), [], [], 0)
            workers = [worker for worker in self._workers() if worker.ready is not None and not worker.leaving]
            if not workers:
                return Reloaded(0, "No worker serves at the moment; those to come read the new one.", [], [], 0)
            answers = await asyncio.gather(*(worker.reload() for worker in workers))
        done = [answer for answer in answers if answer is not None and not answer.mistakes]
        if len(done) == len(workers):
            return Reloaded(0, "", done[0].sources, done[0].warnings, len(done))
        mistakes = next((answer.mistakes for answer in answers if answer is not None and answer.mistakes), "")
        said = f"{len(workers) - len(done)} of {len(workers)} workers have not taken it over. Reload again. {mistakes}".rstrip()
        _log.error("%s", said)
        return Reloaded(0, said, [], [], len(done))

    def _check(self) -> None:
        """Makes sure that the configuration can be served from.

        Raises:
            ConfigError: It cannot.
        """
        app.validate(app.load_configuration(self._path))

    async def _reload_on_signal(self) -> None:
        await self.reload()

    async def _start_all(self) -> None:
        fills = [asyncio.create_task(self._fill(place)) for place in self._places]
        try:
            await asyncio.gather(*fills)
        finally:
            for fill in fills:
                fill.cancel()
            await asyncio.gather(*fills, return_exceptions=True)
        self._begun = True

    async def _fill(self, place: _Place) -> None:
        """Puts a worker into a place, after pauses that double as long as it crashes."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                place.worker = await self._started(place)
            except CrashError as error:
                self._crashes += 1
                if self._crashes >= _MOST_CRASHES and not self._serving():
                    raise Problem(
                        f"Workers end at their start again and again; the last one {error}. Its last words are above. "
                        "Serve with --workers 1 to see more."
                    ) from error
                _log.warning("A worker %s at its start, and is started again in %g s.", error, pause)
            except Problem as problem:
                if not (self._begun and self._serving()):
                    raise
                _log.error("A worker cannot serve, and is tried again in %g s. %s", pause, problem)
            else:
                self._crashes = 0
                if self._stop.is_set():  # it was too late for the others' word
                    place.worker.drain(hand_over=False)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _started(self, place: _Place) -> Child:
        if not place.sockets:
            place.sockets = self._shared.rest.more()
        shared = self._shared.begin
        begin = Begin(
            config=shared.config,
            group=shared.group,
            rest_sockets=[one.fileno() for one in place.sockets],
            grpc_port=shared.grpc_port,
            token=shared.token,
            state_url=shared.state_url,
            local=shared.local,
        )
        try:
            worker = await Child.started(begin, place.sockets, self)
        except BaseException:
            if place.worker is None:
                place.close()
            raise
        self._do(self._watch(place, worker))
        return worker

    async def _watch(self, place: _Place, worker: Child) -> None:
        """Waits for a worker's end, keeps what it had counted, and puts another one in its place unless it was told to end."""
        how = await worker.wait()
        self._leaving.discard(worker)
        if place.worker is worker:
            place.worker = None
        self._hub.ended(worker)
        if worker.leaving or self._stop.is_set():
            return
        place.close()
        _log.warning("The worker with the process id %d %s. Another one takes its place.", worker.pid, how)
        self._hub.restarts += 1
        try:
            await self._fill(place)
        except Problem as problem:
            self._problem = problem
            self._stop.set()

    async def _replace_all(self) -> None:
        """Replaces every worker by one that reads program and configuration anew; no connection is refused meanwhile."""
        async with self._changing:
            try:
                await asyncio.to_thread(self._check)
                for place in self._places:
                    await self._replace(place)
            except (ConfigError, Problem, CrashError) as error:
                _log.error("The workers were not replaced, or not all of them. %s", error)
            else:
                _log.info("The workers were replaced.")

    async def _replace(self, place: _Place) -> None:
        old = place.worker
        if old is None:
            return  # it has died, and another one is on its way
        new = await self._started(place)
        if place.worker is not old:  # it died in the meantime, and so the place has another one already
            await new.kill()
            return
        place.worker = new
        self._leaving.add(old)
        old.drain(hand_over=True)
        self._do(self._end_late(old))

    async def _drain_all(self) -> None:
        for worker in self._workers():
            worker.drain(hand_over=False)
        await asyncio.gather(*(self._end_late(worker) for worker in self._workers()))

    async def _end_late(self, worker: Child) -> None:
        """Ends a worker that takes too long to end: first its clients may leave, and then requests may end."""
        try:
            async with asyncio.timeout(2.2 * self._drain_seconds + _SLACK_SECONDS):
                await worker.wait()
        except TimeoutError:
            _log.warning("The worker with the process id %d does not end, and is killed.", worker.pid)
            await worker.kill()

    def _workers(self) -> list[Child]:
        """Returns all workers: those that serve, in the order of their places, and those that still end."""
        return [*(place.worker for place in self._places if place.worker is not None), *self._leaving]

    def _serving(self) -> bool:
        return any(place.worker is not None for place in self._places)

    def _greet(self) -> None:
        ready = next((worker.ready for worker in self._workers() if worker.ready is not None), None)
        if ready is not None:
            text = greeting(ready.url, ready.grpc_url, ready.models, self._shared.begin.token)
            print(f"workers {len(self._places)}\n{text}", flush=True)

    def _on_stop(self) -> None:
        self._stop.set()
        print("Stopping: requests under way may finish. Press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._end_now, 128 + number)

    def _end_now(self, code: int) -> None:
        for worker in self._workers():
            worker.kill_now()
        store = self._shared.store
        if store is not None and store.pid is not None:
            os.kill(store.pid, signal.SIGKILL)
        shutil.rmtree(self._shared.directory, ignore_errors=True)
        os._exit(code)

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _private_directory() -> Path:
    """Returns a new directory that nobody else may enter, with a path that is short enough for sockets."""
    made = Path(tempfile.mkdtemp(prefix="twinspan-"))
    if len(str(made)) <= _LONGEST_SOCKET_PATH - len("/state.sock"):
        return made
    made.rmdir()
    return Path(tempfile.mkdtemp(prefix="twinspan-", dir="/tmp"))


def _drain_seconds(configuration: Configuration) -> float:
    return configuration.current.config.server.drain_seconds
