"""Governance: what decides whether a request may be made, and where it goes, put together from a configuration.

It holds what routing has learnt, what limits have counted, and what is known of accounts and billing; all of it outlives reloads.
Above is `gateway.app`; the exchange, the forwarder and Explain are handed what they ask.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.availability import Availability
from gateway.config.schema import Config
from gateway.limits.limiter import Limiter
from gateway.limits.spending import Spending
from gateway.providers.sender import Sender
from gateway.routing.catalogue import Catalogue
from gateway.routing.plan import Planner
from gateway.routing.state import RoutingState
from gateway.state.opening import make_store
from gateway.state.watch import StoreWatch
from gateway.telemetry.conditions import Conditions
from gateway.telemetry.recorder import Recorder


class Governance:
    """What decides about requests.

    Attributes:
        state: What routing has learnt.
        limiter: Lets requests in.
        availability: Knows accounts and billing.
        planner: Decides whom to ask.
        store: Where what is shared lives.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        recorder: Recorder,
        sender: Sender,
        tell: Callable[[bool], Awaitable[None]],
        *,
        state_url: str | None,
        budgets: Path,
        accounts: Path,
    ) -> None:
        """Makes everything; nothing is read or asked yet.

        Args:
            config: Returns the configuration that holds now.
            recorder: Counts, and is told how things stand.
            sender: Asks providers what is left.
            tell: Is told whether the shared state can be reached.
            state_url: Where shared state lives; None for where the configuration says.
            budgets: The directory for what was spent, used if the store is this gateway's own.
            accounts: The file for what is learnt of accounts and billing.
        """
        configured = config().state.url
        self.store = make_store(state_url or configured, config().state.lease_requests)
        self._watch = StoreWatch(self.store, tell)
        self.state = RoutingState(recorder.breaker_moved)
        # A store of the gateway's own forgets what was spent when it ends.
        spending = Spending(budgets) if configured.startswith("memory:") else None
        self.limiter = Limiter(self.store, recorder, fails_open=lambda: config().state.fail_open, spending=spending)
        self.availability = Availability(accounts, recorder, sender)
        self.planner = Planner(self.state, unavailable=self.availability.left_out, prefers=self.availability.preferred)
        recorder.conditions = self.conditions

    async def start(self, catalogue: Catalogue) -> None:
        """Takes up what an earlier process has learnt, and begins to ask what is left."""
        await self.store.start()
        await self._watch.start()
        await self.availability.start(catalogue)

    def adopt(self, catalogue: Catalogue) -> None:
        """Goes over to another catalogue; what is known of targets that are no more is forgotten."""
        self.state.forget(catalogue.agents, catalogue.targets())
        self.availability.adopt(catalogue)

    async def close(self) -> None:
        """Settles what is open, writes what is to outlive the process, and frees the store."""
        await self._watch.stop()
        await self.limiter.close()
        await self.availability.close()
        await self.store.close()

    def conditions(self) -> Conditions:
        """Returns how things stand. It may be called in a thread."""
        now = time.monotonic()
        return Conditions(
            self.state.conditions(now),
            list(self.availability.accounts.states(now)),
            self.availability.billing.states(now),
            [(host, of, left) for (host, of), left in list(self.limiter.hosts_left.items())],
            self.state.sessions.count(now),
        )
