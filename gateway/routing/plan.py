"""The plan: which targets of a route are tried for a request, in which order, and why others are not.

Above are the exchange, which carries it out, and Explain, which shows it. Below are the strategies and what routing has learnt.
Pure: the clock, turns and randomness are passed in.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.limits.estimate import Size
from gateway.routing.catalogue import Route, Rules
from gateway.routing.state import RoutingState
from gateway.routing.strategies import BETWEEN_PROVIDERS, STRATEGIES, Situation, fallback, latency_if_known
from gateway.routing.target import Target

BREAKER, TOO_LONG, TOO_DEAR = "breaker", "context", "cost"
ASSUMED_OUTPUT: Final = 1000
"""How many tokens an answer is taken to have whose length the request does not limit, where its cost is estimated."""


class Asked(Protocol):
    """What is asked, as far as a plan looks at it. Both are only called where the plan depends on them."""

    def size(self) -> Size:
        """Returns how many tokens it may take."""

    def session(self) -> bytes | None:
        """Returns what the conversation is known by: a digest of its beginning; None if it is none."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A target that is not tried.

    Attributes:
        target: The target.
        reason: `breaker`, `context`, `cost`, or whatever else `Unavailable` says.
        message: The same for people.
        wait_seconds: After how long it may be tried; 0 if time changes nothing.
        kind: The kind of the error, if it is the only target.
        worth_waiting: Whether it is tried all the same if there is nothing else, since the wait is short.
    """

    target: Target
    reason: str
    message: str
    wait_seconds: float = 0.0
    kind: ErrorKind.ValueType = ErrorKind.ERROR_KIND_RATE_LIMITED
    worth_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request is carried out.

    Attributes:
        targets: Those that are tried, in this order.
        scores: Their scores, in the same order: the smaller the better, and of no meaning from one strategy to the other.
        left_out: The others.
        last_resort: Whether breakers are not waited for, since there is nothing else to try.
        session: What the conversation is known by; None if that is of no use here.
    """

    targets: Sequence[Target]
    scores: Sequence[float] = ()
    left_out: Sequence[LeftOut] = ()
    last_resort: bool = False
    session: bytes | None = None


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans.

    Attributes:
        state: What routing has learnt.
        randomness: Where chance comes from.
        unavailable: Returns why a target cannot be asked now, beside its breaker; None if it can.
        prefers: Puts some targets before the others, whatever the strategy says.
    """

    state: RoutingState
    randomness: random.Random = field(default_factory=random.Random)
    unavailable: Callable[[Target, float], LeftOut | None] | None = None
    prefers: Callable[[Sequence[Target]], Sequence[Target]] | None = None

    def plan(self, route: Route, rules: Rules, asked: Asked, now: float, *, turn: int | None = None) -> Plan:
        """Returns the plan for a request.

        If breakers leave nothing to try, those are tried whose providers have not asked to wait: an answer is still likelier than
        without trying.

        Args:
            route: Where the request goes.
            rules: What holds for all routes.
            asked: What is asked.
            now: The time.
            turn: How many requests the agent has had before; None if this one is to be counted.
        """
        if len(route.targets) == 1 or (route.agent is not None and route.agent.strategy == "fallback"):
            plan = self._at_once(route, rules, now)
            if plan is not None:
                return plan
        targets, left_out = route.targets, list[LeftOut]()
        for judge in self._judges(rules, asked):
            verdicts = [(target, judge(target, now)) for target in targets]
            left_out += [verdict for _, verdict in verdicts if verdict is not None]
            targets = tuple(target for target, verdict in verdicts if verdict is None)
        if not targets and (soon := [one for one in left_out if one.worth_waiting]):
            soonest = min(soon, key=lambda one: one.wait_seconds)
            targets = (soonest.target,)
            left_out.remove(soonest)
        closed = [target for target in targets if self.state.available(target, now)] if self.state.breakers else list(targets)
        held = (
            [held_by_breaker(self.state, target, now) for target in targets if target not in closed]
            if len(closed) < len(targets)
            else []
        )
        last_resort = not closed
        if last_resort:
            breakers = self.state.breakers
            closed = [target for target in targets if breakers[target.key].as_last_resort(now)]
            held = [one for one in held if one.target not in closed]
        return self._ordered(route, rules, asked, now, turn, closed, [*left_out, *held], last_resort=last_resort and bool(closed))

    def _at_once(self, route: Route, rules: Rules, now: float) -> Plan | None:
        """Returns the plan where there is nothing to look at, as mostly: all targets, as configured; None if there is something."""
        if self.state.breakers or rules.skips_too_long or rules.max_cost_usd:
            return None
        unavailable = self.unavailable
        if unavailable is not None and any(unavailable(target, now) for target in route.targets):
            return None
        if route.agent is not None and route.agent.strategy == "sticky":
            return None
        targets = route.targets if self.prefers is None else self.prefers(route.targets)
        return Plan(targets, range(len(targets)))

    def _ordered(
        self,
        route: Route,
        rules: Rules,
        asked: Asked,
        now: float,
        turn: int | None,
        targets: Sequence[Target],
        left_out: Sequence[LeftOut],
        *,
        last_resort: bool,
    ) -> Plan:
        agent = route.agent
        strategy = STRATEGIES[agent.strategy] if agent is not None else BETWEEN_PROVIDERS[rules.routing_strategy]
        if rules.reorders_by_latency and any(one.reason == TOO_LONG for one in left_out):
            strategy = latency_if_known
        session = asked.session() if agent is not None and agent.strategy == "sticky" else None
        if strategy is not fallback and agent is not None and turn is None:
            turn = self.state.next_turn(agent.name)
        if len(targets) < 2:
            return Plan(targets, [0.0] * len(targets), left_out, last_resort, session)
        # The turn counts among all targets, so that one that is left out does not change those of the others.
        situation = Situation(self.state, turn or 0, now, self.randomness, session, rules.weights)
        scores = dict(zip((target.key for target in route.targets), strategy(route.targets, situation), strict=True))
        ordered: Sequence[Target] = sorted(targets, key=lambda target: scores[target.key])
        if self.prefers is not None:
            ordered = self.prefers(ordered)
        return Plan(ordered, [scores[target.key] for target in ordered], left_out, last_resort, session)

    def _judges(self, rules: Rules, asked: Asked) -> list[Callable[[Target, float], LeftOut | None]]:
        judges: list[Callable[[Target, float], LeftOut | None]] = []
        if self.unavailable is not None:
            judges.append(self.unavailable)
        if rules.skips_too_long:
            judges.append(lambda target, _: _too_long(target, asked.size()))
        if rules.max_cost_usd:
            judges.append(lambda target, _: _too_dear(target, asked.size(), rules.max_cost_usd))
        return judges


def held_by_breaker(state: RoutingState, target: Target, now: float) -> LeftOut:
    """Returns why a target is left out whose breaker lets nothing through."""
    breaker = state.breakers[target.key]
    wait = breaker.wait_seconds(now)
    stands = breaker.state.name.lower().replace("_", "-")
    what = f"for another {wait:.3g} s" if wait else "and all its probes are under way"
    why = f"Its breaker is {stands} {what}, after {breaker.last_error}. Try again later, or another model."
    return LeftOut(target, BREAKER, why, wait)


def nothing_to_try(route: Route, plan: Plan) -> GatewayError:
    """Returns the error of a request for which no target is left."""
    left_out = plan.left_out
    reasons = {one.reason for one in left_out}
    waits = [one.wait_seconds for one in left_out if one.wait_seconds]
    retry_after = min(waits) if waits else None
    listed = "; ".join(f"{one.target.provider.name}/{one.target.model}: {one.message}" for one in left_out)
    if reasons == {TOO_LONG}:
        return GatewayError(
            ErrorKind.ERROR_KIND_CONTEXT_EXCEEDED,
            f"The request is too long for every target of '{route.name}'. Shorten it. {listed}",
            param="messages",
        )
    if reasons == {TOO_DEAR}:
        return GatewayError(
            ErrorKind.ERROR_KIND_INVALID_REQUEST,
            f"The request would cost more than this gateway allows for one. Shorten it, or name a cheaper model. {listed}",
        )
    if len(left_out) == 1:
        one = left_out[0]
        return GatewayError(
            one.kind,
            f"The model '{one.target.model}' of '{one.target.provider.name}' cannot be asked now. {one.message}",
            provider=one.target.provider.name,
            model=one.target.model,
            retry_after=retry_after,
        )
    kinds = {one.kind for one in left_out}
    kind = kinds.pop() if len(kinds) == 1 and BREAKER not in reasons else ErrorKind.ERROR_KIND_TARGETS_EXHAUSTED
    return GatewayError(kind, f"No target of '{route.name}' can be asked now. {listed}", retry_after=retry_after)


def _too_long(target: Target, size: Size) -> LeftOut | None:
    window = target.context_window
    if window is None or size.total <= window:
        return None
    return LeftOut(target, TOO_LONG, f"About {size.total} tokens are more than the {window} that it takes.")


def _too_dear(target: Target, size: Size, most_usd: float) -> LeftOut | None:
    usd = target.estimated_usd(size.input_tokens, size.output_tokens or ASSUMED_OUTPUT)
    if usd is None or usd <= most_usd:
        return None
    return LeftOut(target, TOO_DEAR, f"About ${usd:.6f} is more than the ${most_usd:.6f} that a request may cost.")
