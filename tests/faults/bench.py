"""One gateway over all faulty providers, with an agent and a key for each cell of the matrix, so that no cell sees another's past.

What the cells assert of the gateway's state stands here, each in one place: whether a target is passed over, what a key has left,
and that nothing is left over.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from twinspan.v1 import admin_pb2, chat_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from gateway.operations.chat_request import beginning_of
from gateway.routing.sessions import preference
from gateway.state.memory import MemoryStore
from tests.faults import table
from tests.faults.proxy import FaultProxy
from tests.faults.surfaces import SURFACES, Clients, Seen, Surface, body_of
from tests.faults.table import Fault, View
from tests.flows.running import TOKEN, configuration, running
from tests.flows.upstream import Upstream, says
from tests.waiting import until

SHARES = {"weighted": (1, 0), "balanced": (1, 0.5)}
"""With strategies that look at weights, those of the faulty target and of the other, so that the faulty one comes first."""
STRATEGIES = ("fallback", "round-robin", "sticky", "weighted", "latency", "cost", "least-busy", "balanced")
HASTY = {"first_token_timeout_seconds": 1.2, "stream_idle_timeout_seconds": 1.2}
"""For providers that hang. It is what a healthy one needs at most on a machine that is busy with other things."""
HASTY_SECONDS = 1.5
HEALTHY, DOWN, DEAR = "healthy", "down", "a-model-that-nobody-can-pay"
PRICES = {HEALTHY: 2000, DOWN: 2000}
"""In US dollars for a million tokens; those of faulty ones cost half of it, so that they come first where the cheaper one does."""
TPM, CLAIMED, USED, BUDGET_USD = 1000, 500, 300, 10
USAGE = {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": USED}
LONG_SECONDS = 3600
_WARM_UPS = 5
_OF_CONNECTIONS = frozenset({"FaultProxy._serve", "RequestHandler.start"})


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How an agent uses a faulty target.

    Attributes:
        name: Which it is.
        strategy: The agent's strategy.
        second: The provider that is asked after the faulty one.
        max_retries: How often one target is tried again.
        failure_threshold: After how many failures a target is passed over.
    """

    name: str
    strategy: str
    second: str = HEALTHY
    max_retries: int = 0
    failure_threshold: int = 1


BY_STRATEGY = tuple(Arrangement(strategy, strategy) for strategy in STRATEGIES)
RETRYING = Arrangement("retrying", "fallback", max_retries=1, failure_threshold=9)
HOPELESS = Arrangement("hopeless", "fallback", second=DOWN)
STORMY = Arrangement("stormy", "fallback", failure_threshold=5)
PATIENT = Arrangement("patient", "fallback", failure_threshold=5)
ARRANGEMENTS = (*BY_STRATEGY, RETRYING, HOPELESS, STORMY, PATIENT)


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault over one surface."""

    fault: Fault
    surface: Surface

    @property
    def view(self) -> View:
        found = self.fault.streamed if self.surface.streams else self.fault.whole
        assert found is not None
        return found

    @property
    def provider(self) -> str:
        return provider_of(self.fault)

    @property
    def model(self) -> str:
        """The faulty model, of which each surface has its own, so that none meets a breaker that another has opened."""
        return models_of(self.provider)[SURFACES.index(self.surface)]

    def agent(self, arrangement: Arrangement) -> str:
        return f"{arrangement.name}-{self.model}"

    def token(self, arrangement: Arrangement | None) -> str:
        return f"ts-key-of-{self.agent(arrangement) if arrangement else self.model}"


def cells(fault: Fault) -> list[Cell]:
    """Returns the cells of a fault that have an expectation."""
    return [Cell(fault, surface) for surface in SURFACES if surface.streams or fault.whole is not None]


def hangs(fault: Fault) -> bool:
    """Tells whether the gateway must give up waiting."""
    return fault.streamed.kind == "provider_timeout"


def provider_of(fault: Fault) -> str:
    """Returns the name of the provider that has this fault."""
    return f"faulty-{list(table.BY_NAME).index(fault.name)}"


def models_of(provider: str) -> list[str]:
    """Returns the models that a provider offers."""
    if provider == HEALTHY:
        return [f"model-of-{provider}", DEAR]
    return [f"model-of-{provider}"] if provider == DOWN else [f"model-{number}-of-{provider}" for number in range(len(SURFACES))]


class Bench:
    """The gateway that runs, the faulty providers, and what can be said of both."""

    def __init__(self, clients: Clients, proxies: Mapping[str, FaultProxy]) -> None:
        self.twinspan = clients.twinspan
        self.proxies = proxies
        self._clients = clients
        self._fresh_left = 0
        self._tasks: Counter[str] = Counter()

    async def settle(self) -> None:
        """Asks over every surface, many at a time, so that what stays open from then on is known."""
        for _ in range(
            _WARM_UPS
        ):  # a process that has just started may take longer for its first answers than a hasty bench allows
            if not [seen for surface in SURFACES for seen in [await self._fine(surface)] if seen.errors]:
                break
        for seen in await asyncio.gather(*(self._fine(surface) for surface in SURFACES * 2)):
            assert seen.errors == [], seen
        self._fresh_left = await self._left("ts-key-of-nobody-at-all")
        await until(lambda: not self._open())

    async def _fine(self, surface: Surface) -> Seen:
        return await surface.ask(self._clients, chat(f"model-of-{HEALTHY}", ""), TOKEN, lambda: None)

    def remember(self) -> None:
        """Takes the tasks that there are now for those that there are without a request."""
        self._tasks = _kinds_of_tasks()

    async def ask(self, cell: Cell, model: str, token: str = TOKEN) -> Seen:
        """Asks over the cell's surface; its faulty provider is told when the client sees something."""
        asker, says = cell.surface.name, self._prompt(model, cell.provider)
        return await cell.surface.ask(
            self._clients, chat(model, asker, says), token, lambda: self.proxies[cell.provider].seen(asker)
        )

    async def healthy(self, cell: Cell) -> Seen:
        """Returns what the client sees if there is no fault."""
        return await self.ask(cell, f"model-of-{HEALTHY}")

    async def breakers(self) -> dict[tuple[str, str], admin_pb2.BreakerStats]:
        """Returns the breakers that have something to remember, by agent and provider."""
        return {(entry.agent, entry.provider): entry for entry in (await self.stats()).breakers}

    async def assert_breaker(self, cell: Cell, agent: str, breaker: admin_pb2.BreakerStats | None) -> None:
        """Makes sure that a faulty target's breaker is open, and the target passed over, if that is to blame, and else not.

        Args:
            cell: Who is faulty, and how.
            agent: The agent that was asked once.
            breaker: The target's breaker, after that.
        """
        view = cell.view
        if view.kind is None:
            assert breaker is None
            return
        asked_again = [await self.ask(cell, agent) for _ in range(2)]
        if view.blamed:
            assert breaker is not None
            assert (breaker.state, breaker.failures, breaker.last_error) == ("open", 1, view.kind)
            assert breaker.remaining_seconds > 0
            assert [(seen.errors, seen.provider, seen.attempts) for seen in asked_again] == [([], HEALTHY, "1")] * 2
        else:
            assert breaker is None
            if not agent.startswith("sticky"):  # where a conversation stays with whom it was answered by
                assert "2" in [seen.attempts for seen in asked_again]

    async def stats(self) -> admin_pb2.GetStatsResponse:
        """Returns what AdminService says."""
        admin = AdminServiceStub(self.twinspan.inprocess)
        stats: admin_pb2.GetStatsResponse = await admin.GetStats(admin_pb2.GetStatsRequest(), metadata=self.twinspan.metadata)
        return stats

    async def assert_settled(self, token: str, *, answered_by: str, begun: bool) -> None:
        """Makes sure that a key's only place is free again, and that its tokens and its budget are settled.

        A request that failed costs nothing, one that was answered what the provider says, and one that broke off what was claimed
        for it, since nobody knows better. The bucket of tokens is refilled meanwhile, by less than 17 a second.

        Args:
            token: The key, which has asked once.
            answered_by: The provider that answered; empty if none did.
            begun: Whether an answer broke off.
        """
        spent = Decimal(BUDGET_USD) - await self._budget_left(token)
        taken = self._fresh_left - await self._left(token)
        if answered_by:
            assert spent == Decimal(USED * price_of(answered_by)) / 1_000_000
            assert 0 < taken <= USED
        elif begun:
            assert spent > Decimal(USED * price_of(HEALTHY) // 2) / 1_000_000
            assert USED < taken <= CLAIMED + 100
        else:
            assert spent == 0
            assert taken == 0

    async def nothing_is_left(self) -> None:
        """Waits until no answer, no connection to a provider, no call, no place and no task of a request is left."""
        try:
            await until(lambda: not self._open() and _kinds_of_tasks() <= self._tasks)
        except TimeoutError:
            pytest.fail(f"still open: {self._open()}; tasks: {_kinds_of_tasks() - self._tasks}")

    async def _left(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        response = await self.twinspan.chat(
            {**chat(f"model-of-{HEALTHY}", ""), "stream": False, "max_completion_tokens": 1}, **headers
        )
        assert response.status_code == 200, response.text
        return int(response.headers["X-RateLimit-Remaining-Tokens"])

    async def _budget_left(self, token: str) -> Decimal:
        """Returns what a key has left, as it is told when it asks for more than that."""
        asked = {**chat(DEAR, ""), "stream": False, "max_completion_tokens": 1}
        response = await self.twinspan.chat(asked, Authorization=f"Bearer {token}")
        assert (response.status_code, response.json()["error_kind"]) == (429, "budget_exceeded"), response.text
        left = re.search(r"has \$([0-9.]+) left", response.json()["error"]["message"])
        assert left is not None
        return Decimal(left[1])

    def _prompt(self, model: str, provider: str) -> str:
        """Returns what to say, so that an agent that stays with whom a conversation began with begins with the faulty target."""
        agent = self.twinspan.gateway.core._catalogue.agents.get(model)
        if agent is None or agent.strategy != "sticky":
            return "Hello"
        for number in count():
            says, request = f"Hello {number}", chat_pb2.ChatRequest()
            body_of(chat(model, "", says)).fill(request)
            if preference(beginning_of(request), agent.targets)[0].provider.name == provider:
                return says
        raise AssertionError

    def _open(self) -> dict[str, int]:
        """Returns what is open, and how much of it: nothing at all once everything is settled."""
        core = self.twinspan.gateway.core
        store = core._governance.store
        assert isinstance(store, MemoryStore)
        found = {
            "answers": core._sender.open_responses,
            "connections": sum(proxy.busy for proxy in self.proxies.values()),
            "calls": sum(counts.inflight for counts in core._recorder.methods.values()),
            "places of keys and hosts": sum(map(len, store._places.values())),
        }
        return {name: count for name, count in found.items() if count}


def _kinds_of_tasks() -> "Counter[str]":
    """Counts tasks by what they do. Those that wait at an idle connection are not among them, nor is a test's own."""
    names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
    return Counter(name for name in names if name not in _OF_CONNECTIONS and not name.startswith("test_"))


def chat(model: str, asker: str, says: str = "Hello") -> dict[str, Any]:
    """Returns what all cells ask."""
    messages = [{"role": "user", "content": says}]
    return {"model": model, "messages": messages, "max_completion_tokens": CLAIMED, "user": asker}


def price_of(provider: str) -> int:
    """Returns what a million tokens cost, read or written, in US dollars."""
    return PRICES.get(provider, 1000)


@asynccontextmanager
async def benches(directory: Path) -> AsyncIterator[Callable[[Fault], Bench]]:
    """Runs two gateways, a hasty one for the providers that hang and a patient one for the others, and gives a fault's bench.

    Args:
        directory: Where they may keep files, each in a directory of its own.
    """
    late = [fault for fault in table.BY_NAME.values() if hangs(fault)]
    others = [fault for fault in table.BY_NAME.values() if not hangs(fault)]
    async with _bench(HASTY, late, directory / "hasty") as hasty, _bench({}, others, directory / "patient") as patient:
        for bench in (hasty, patient):
            bench.remember()
        yield lambda fault: hasty if hangs(fault) else patient


@asynccontextmanager
async def _bench(governance: Mapping[str, Any], faults: Sequence[Fault], files: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        upstream.plays(says("Hello ", "there.", usage=USAGE))
        provider = await stack.enter_async_context(httpx.AsyncClient(base_url=upstream.base_url, timeout=5))
        plays = {HEALTHY: table.BY_NAME["does nothing wrong"].play, DOWN: table.BY_NAME["answers 503 with a page"].play}
        plays |= {provider_of(fault): fault.play for fault in faults}
        proxies = {name: await stack.enter_async_context(FaultProxy(provider, play)) for name, play in plays.items()}
        twinspan = await stack.enter_async_context(
            running({**_sections(governance, proxies, faults), "files": {"dir": str(files)}})
        )
        sdk = await stack.enter_async_context(twinspan.openai())
        started = Bench(Clients(twinspan, sdk), proxies)
        await started.settle()
        yield started
        complaints = twinspan.complaints()
        assert complaints == [], complaints


def _sections(governance: Mapping[str, Any], proxies: Mapping[str, FaultProxy], faults: Sequence[Fault]) -> dict[str, Any]:
    every = [Cell(fault, surface) for fault in faults for surface in SURFACES]
    hasty = {provider_of(fault) for fault in faults if hangs(fault)}
    tokens = [cell.token(arrangement) for cell in every for arrangement in (None, *ARRANGEMENTS)]
    return configuration(
        "",
        governance=dict(governance),
        providers={
            name: {
                "base_url": proxy.base_url,
                "api_key": "secret-of-the-provider",
                "models": models_of(name),
                "max_parallel": 1000,
                "model_info": {model: _prices(1_000_000_000 if model == DEAR else price_of(name)) for model in models_of(name)},
                **({"timeout_seconds": HASTY_SECONDS} if name in hasty else {}),
            }
            for name, proxy in proxies.items()
        },
        agents={cell.agent(arrangement): _agent(cell, arrangement) for cell in every for arrangement in ARRANGEMENTS},
        api_keys=[
            {"name": token, "token": token, "roles": ["user"], "tpm": TPM, "max_parallel": 1, "budget_usd": BUDGET_USD}
            for token in (*tokens, "ts-key-of-nobody-at-all")
        ],
    )


def _prices(usd: int) -> dict[str, int]:
    return {"input_cost_per_1m": usd, "output_cost_per_1m": usd}


def _agent(cell: Cell, arrangement: Arrangement) -> dict[str, Any]:
    first, second = SHARES.get(arrangement.strategy, (1, 1))
    return {
        "strategy": arrangement.strategy,
        "models": [
            {"provider": cell.provider, "model": cell.model, "weight": first},
            {"provider": arrangement.second, "model": f"model-of-{arrangement.second}", "weight": second},
        ],
        "max_retries": arrangement.max_retries,
        "failure_threshold": arrangement.failure_threshold,
        "cooldown_seconds": LONG_SECONDS,
    }
