"""Strategies: in which order an agent's targets are tried."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Strategy: TypeAlias = Callable[[Sequence[T], int], Sequence[T]]
"""Returns all targets in the order in which they are to be tried, given how many requests the agent has had before."""


def fallback(targets: Sequence[T], _turn: int) -> Sequence[T]:
    """Always the configured order: a later target is there for when the earlier ones fail."""
    return targets


def round_robin(targets: Sequence[T], turn: int) -> Sequence[T]:
    """Each request begins one target further; the others follow in the configured order."""
    start = turn % len(targets)
    return [*targets[start:], *targets[:start]]


STRATEGIES: Mapping[str, Strategy[Any]] = {"fallback": fallback, "round-robin": round_robin}
"""The strategies by their names in the configuration."""
