"""What routing learns while it serves: how targets are, whose turn it is, and where conversations stay.

It outlives the catalogue, which each reload and each round of discovery makes anew. It is bounded: what there is nothing to
remember of is dropped, and of targets that are configured no more `forget` drops the rest. Pure: the clock is passed in.
"""

from collections.abc import Callable, Iterable
from typing import Final

from gateway.routing.breaker import Breaker, BreakerSettings, BreakerState, Hold
from gateway.routing.latency import Latency
from gateway.routing.sessions import Sessions
from gateway.routing.target import Target
from gateway.telemetry.conditions import BreakerCondition

_OTHERS: Final = 1000
"""How many breakers there are at most of models that callers name themselves, whether or not anybody has configured them."""

Key = tuple[str, str, str]


class RoutingState:
    """What routing has learnt.

    Attributes:
        breakers: Those that have something to remember, by target.
        latencies: How soon targets begin to answer; only of those between which there is a choice.
        busy: How many attempts are under way, by target; only where there are any.
        turns: How many requests each agent has had.
        sessions: Where conversations stay.
    """

    def __init__(self, on_change: Callable[[BreakerState], None] | None = None) -> None:
        """Makes a state that has learnt nothing.

        Args:
            on_change: Is told of each change of a breaker, and into what.
        """
        self.breakers: dict[Key, Breaker] = {}
        self.latencies: dict[Key, Latency] = {}
        self.busy: dict[Key, int] = {}
        self.turns: dict[str, int] = {}
        self.sessions = Sessions()
        self._moved: dict[Key, BreakerState] = {}
        self._on_change = on_change

    def available(self, target: Target, now: float) -> bool:
        """Tells whether a target's breaker lets an attempt through."""
        breaker = self.breakers.get(target.key)
        return breaker is None or breaker.available(now)

    def enter(self, target: Target) -> int:
        """Begins an attempt, and returns what it must be left with."""
        key = target.key
        self.busy[key] = self.busy.get(key, 0) + 1
        breaker = self.breakers.get(key)
        if breaker is None:
            return 0
        before = breaker.state
        entered = breaker.enter()
        self._note(key, breaker, before)
        return entered

    def succeeded(self, target: Target, entered: int, settings: BreakerSettings) -> None:
        """Ends an attempt that went well."""
        key = target.key
        self._leave(key)
        breaker = self.breakers.get(key)
        if breaker is not None:
            before = breaker.state
            breaker.succeeded(entered, settings)
            self._note(key, breaker, before)
            if breaker.idle:
                del self.breakers[key]

    def failed(
        self,
        target: Target,
        entered: int,
        now: float,
        settings: BreakerSettings,
        error_kind: str,
        hold: Callable[[int], Hold | None],
    ) -> bool:
        """Ends an attempt that failed, and tells whether the target's breaker opened with it.

        Args:
            target: The target.
            entered: What `enter` returned.
            now: The time.
            settings: What holds for the target.
            error_kind: The kind of the failure.
            hold: Returns what opens the breaker at once, given how often in a row it was held; None if failures are to be counted.
        """
        key = target.key
        self._leave(key)
        breaker = self.breakers.get(key)
        if breaker is None:
            if not target.agent:
                self._make_room()
            breaker = self.breakers[key] = Breaker()
        opened = breaker.failed(entered, now, settings, error_kind, hold(breaker.level))
        if opened:
            self._tell(key, BreakerState.OPEN)
        return opened

    def abandoned(self, target: Target, entered: int) -> None:
        """Ends an attempt that says nothing of the target."""
        key = target.key
        self._leave(key)
        breaker = self.breakers.get(key)
        if breaker is not None:
            breaker.abandoned(entered)

    def began(self, target: Target, seconds: float) -> None:
        """Notes how soon a target began to answer."""
        latency = self.latencies.get(target.key)
        if latency is None:
            latency = self.latencies[target.key] = Latency()
        latency.observe(seconds)

    def conditions(self, now: float) -> list[BreakerCondition]:
        """Returns how all breakers stand that have something to remember or have moved, in alphabetical order. A thread may ask."""
        breakers = dict(self.breakers)
        found = {key: BreakerCondition(*key, int(BreakerState.CLOSED)) for key in list(self._moved)}
        for key, breaker in breakers.items():
            state, wait = int(breaker.state), breaker.wait_seconds(now)
            found[key] = BreakerCondition(*key, state, breaker.failures, wait, breaker.last_error)
        return [condition for _, condition in sorted(found.items())]

    def next_turn(self, agent: str) -> int:
        """Returns how many requests the agent has had before, and counts this one."""
        turn = self.turns.get(agent, 0)
        self.turns[agent] = turn + 1
        return turn

    def forget(self, agents: Iterable[str], targets: Iterable[Target]) -> None:
        """Drops what is known of agents and targets other than these; models that callers name themselves are kept."""
        keys = {target.key for target in targets}
        names = set(agents)
        self.breakers = {key: value for key, value in self.breakers.items() if key in keys or not key[0]}
        self.latencies = {key: value for key, value in self.latencies.items() if key in keys}
        self._moved = {key: value for key, value in self._moved.items() if key in keys or not key[0]}
        self.turns = {name: turn for name, turn in self.turns.items() if name in names}

    def _leave(self, key: Key) -> None:
        busy = self.busy.get(key, 0) - 1
        if busy > 0:
            self.busy[key] = busy
        else:
            self.busy.pop(key, None)

    def _note(self, key: Key, breaker: Breaker, before: BreakerState) -> None:
        if breaker.state is not before:
            self._tell(key, breaker.state)

    def _tell(self, key: Key, state: BreakerState) -> None:
        if key in self._moved or len(self._moved) < _OTHERS:
            self._moved[key] = state
        if self._on_change is not None:
            self._on_change(state)

    def _make_room(self) -> None:
        """Forgets the breaker that has been there longest of a model that callers name themselves, if there are too many of those.

        Agents' targets are bounded by the configuration, and neither count nor go.
        """
        others = [key for key in self.breakers if not key[0]]
        if len(others) >= _OTHERS:
            del self.breakers[others[0]]
