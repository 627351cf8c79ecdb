"""Strategies: in which order targets are tried.

Each gives every target a score, and the smaller one goes first; equals keep the configured order. So whoever wants to know why an
order came out as it did can be shown the scores. Pure: turns, clocks and randomness are passed in.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Final, TypeAlias

from gateway.routing.sessions import preference
from gateway.routing.state import RoutingState
from gateway.routing.target import Target

_JITTER: Final = 0.05
"""By how much of itself a latency is varied, so that equals share the load."""

_UNKNOWN: Final = 0.5
"""What an unknown figure counts among those that are known, where the largest is 1."""

_CAPABILITY_WEIGHT: Final = 0.25
_BONUS_WEIGHT: Final = 0.25

COST_SCALES: Final[Mapping[str, float]] = {"economy": 1.5, "balanced": 1.0, "quality": 0.0}
"""How much cost counts, by `governance.cost_mode`."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts how much in `balanced`.

    Attributes:
        latency: How soon the target begins to answer.
        cost: What its tokens cost, the mode included.
    """

    latency: float = 1.0
    cost: float = 0.0


EVEN: Final = Weights()
"""What counts how much where nothing is configured."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a strategy may look at.

    Attributes:
        state: What routing has learnt.
        turn: How many requests the agent has had before.
        now: The time.
        randomness: Where chance comes from.
        session: What the conversation is known by; None if it is none.
        weights: What counts how much.
    """

    state: RoutingState
    turn: int
    now: float
    randomness: random.Random
    session: bytes | None = None
    weights: Weights = EVEN


Strategy: TypeAlias = Callable[[Sequence[Target], Situation], Sequence[float]]
"""Returns each target's score, in the order of the targets."""


def fallback(targets: Sequence[Target], _: Situation) -> Sequence[float]:
    """Always the configured order: a later target is there for when the earlier ones fail."""
    return range(len(targets))


def round_robin(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """Each request begins one target further; the others follow in the configured order."""
    return [(number - situation.turn) % len(targets) for number in range(len(targets))]


def weighted(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """By chance, each target in proportion to its weight; one without any weight comes last.

    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006.
    """
    draw = situation.randomness.random
    return [-log(1.0 - draw()) / target.weight if target.weight > 0 else inf for target in targets]


def latency(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """The target first that begins to answer soonest, give or take 5 %; one that was not measured yet goes before it."""
    return [0.0 if seconds is None else seconds for seconds in _jittered(targets, situation)]


def latency_if_known(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """The same, but one that was not measured yet keeps out of the way: nobody is asked only to be measured."""
    return [inf if seconds is None else seconds for seconds in _jittered(targets, situation)]


def cost(targets: Sequence[Target], _: Situation) -> Sequence[float]:
    """The cheapest target first, taking three tokens read for one written; one whose price is not known comes last."""
    return [inf if target.blended_usd is None else target.blended_usd for target in targets]


def least_busy(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """The target first at which the fewest requests are under way; between equals, each has its turn."""
    turns = round_robin(targets, situation)
    busy = situation.state.busy
    return [busy.get(target.key, 0) + turn / len(targets) for target, turn in zip(targets, turns, strict=True)]


def sticky(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """The target first with which the conversation stays; a new one is given its own by its beginning. Others as `round-robin`."""
    session = situation.session
    if session is None:
        return round_robin(targets, situation)
    pinned = situation.state.sessions.pinned(session, situation.now)
    preferred = {target.key: rank for rank, target in enumerate(preference(session, targets))}
    return [-1.0 if target.key == pinned else preferred[target.key] for target in targets]


def balanced(targets: Sequence[Target], situation: Situation) -> Sequence[float]:
    """By latency and cost, each as a share of the largest among the targets and weighted as configured, and by two smaller terms.

    Those are what share of the most able target's capabilities the target lacks, and of the largest weight, a quarter each.
    """
    latencies = _shares(list(_jittered(targets, situation)))
    costs = _shares([target.blended_usd for target in targets])
    capabilities = _shares([float(len(target.capabilities)) for target in targets])
    bonuses = _shares([target.weight for target in targets])
    weights = situation.weights
    return [
        weights.latency * slow + weights.cost * dear + _CAPABILITY_WEIGHT * (1 - able) + _BONUS_WEIGHT * (1 - bonus)
        for slow, dear, able, bonus in zip(latencies, costs, capabilities, bonuses, strict=True)
    ]


def _jittered(targets: Sequence[Target], situation: Situation) -> Sequence[float | None]:
    latencies = situation.state.latencies
    found = [latencies.get(target.key) for target in targets]
    vary = situation.randomness.uniform
    return [None if one is None or one.seconds is None else one.seconds * (1 + vary(-_JITTER, _JITTER)) for one in found]


def _shares(figures: Sequence[float | None]) -> list[float]:
    """Returns each figure as a share of the largest."""
    largest = max((figure for figure in figures if figure is not None), default=0.0)
    return [_UNKNOWN if figure is None else figure / largest if largest > 0 else 0.0 for figure in figures]


STRATEGIES: Mapping[str, Strategy] = {
    "fallback": fallback,
    "round-robin": round_robin,
    "sticky": sticky,
    "weighted": weighted,
    "latency": latency,
    "cost": cost,
    "least-busy": least_busy,
    "balanced": balanced,
}
"""The strategies of agents by their names in the configuration."""

BETWEEN_PROVIDERS: Mapping[str, Strategy] = {"latency": latency_if_known, "balanced": balanced}
"""The strategies between several providers of one model, by `governance.routing_strategy`."""
