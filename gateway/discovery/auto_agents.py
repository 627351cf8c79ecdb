"""Agents that are made of the models there are: `fast`, `reasoning`, `vision`, `tools`, `large`, `balanced`, `coding`.

Each is an ordinary agent over the models that fit its purpose best, as far as their facts tell: prices, context windows, abilities,
and names where those are silent. docs/configuration.md states the rules. The same catalogue always gives the same agents. Pure.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final, TypeAlias

from gateway.config.discovery import AutoAgentKind, AutoAgentOverride, AutoAgentsConfig
from gateway.routing.catalogue import Agent
from gateway.routing.target import Target

_OTHER_PURPOSES: Final = re.compile(
    r"audio|babbage|computer-use|curie|dall-e|davinci|embed|guard|image|imagen|instruct-0914|lyria|moderation|ocr|orpheus|realtime"
    r"|rerank|search|sora|speech|transcribe|translate|tts|veo|video|voyage|whisper|(^|/)ada$",
    re.IGNORECASE,
)
"""Names of models that cannot simply be talked with, where nobody says whether they can."""
_SMALL: Final = re.compile(r"flash|haiku|instant|lite|mini(?!max)|nano|small|tiny|turbo|(^|[^0-9])[1-9]b([^a-z]|$)", re.IGNORECASE)
_REASONS: Final = re.compile(r"(^|[/-])(o[1-9]|r1)([-:]|$)|magistral|qwq|reason|think", re.IGNORECASE)
_CODES: Final = re.compile(r"cod(e|er|estral|ex|ing)([^a-z]|$)|devstral", re.IGNORECASE)
_DATED: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")

_Rank: TypeAlias = tuple[float, ...]
_Ranking: TypeAlias = Callable[[Target], _Rank | None]
"""Returns where a model stands, lower ones first; None if it does not fit."""

_DESCRIPTIONS: Final[Mapping[AutoAgentKind, str]] = {
    "fast": "The cheapest models.",
    "reasoning": "The strongest models that reason.",
    "vision": "Models that see pictures.",
    "tools": "Models that call tools.",
    "large": "The models with the largest context windows.",
    "balanced": "Models of a middling price.",
    "coding": "Models for writing code.",
}


def auto_agents(config: AutoAgentsConfig, offered: Mapping[str, Sequence[Target]], *, taken: Collection[str]) -> list[Agent]:
    """Returns the agents; one that no model fits, or whose name is taken, is not among them.

    Args:
        config: Which are wanted, and how they are to be.
        offered: Who offers each model, in the catalogue's order.
        taken: The names of the configured agents.
    """
    candidates = _candidates(offered)
    rankings = _rankings(candidates)
    agents: list[Agent] = []
    for kind in dict.fromkeys(config.agents):
        name = config.prefix + kind
        if name in taken or name in offered:
            continue
        override = config.overrides.get(kind, AutoAgentOverride())
        ranked = [
            (rank, target) for target in candidates if _wanted(target, override) and (rank := rankings[kind](target)) is not None
        ]
        ranked.sort(key=lambda item: item[0])  # stable: the catalogue's order decides between equals
        targets = tuple(replace(target, agent=name) for _, target in ranked[: override.max_targets or config.max_targets])
        if targets:
            strategy = override.strategy or config.strategy
            agents.append(Agent(name, targets, strategy, description=_DESCRIPTIONS[kind]))
    return agents


def _candidates(offered: Mapping[str, Sequence[Target]]) -> list[Target]:
    """Returns what is there and can be talked with, each once; a dated version not beside the model that it is a version of."""
    targets = {(target.provider.name, target.model): target for targets in offered.values() for target in targets if _chats(target)}
    return [
        target
        for (provider, model), target in targets.items()
        if (undated := _DATED.sub("", model)) == model or (provider, undated) not in targets
    ]


def _chats(target: Target) -> bool:
    if target.provider.models is None and not target.provider.found:
        return False  # the registry alone knows it: it may be long gone
    if target.facts.chats is not None:
        return target.facts.chats
    return target.model not in target.provider.embedding_models and _OTHER_PURPOSES.search(target.model) is None


def _wanted(target: Target, override: AutoAgentOverride) -> bool:
    if override.provider_rgx is not None and not re.search(override.provider_rgx, target.provider.name):
        return False
    return override.model_rgx is None or re.search(override.model_rgx, target.model) is not None


def _price(target: Target) -> float | None:
    """Returns what a million tokens cost, three of four of them read; None if that is not known."""
    if target.provider.free:
        return 0.0
    prices = target.facts.prices
    return None if prices is None else (3 * prices.input + prices.output) / 4


def _rankings(candidates: Sequence[Target]) -> Mapping[AutoAgentKind, _Ranking]:
    known = [price for target in candidates if (price := _price(target))]
    middle = median(known) if known else 1.0

    def thrift(target: Target) -> _Rank:
        price = _price(target)
        return (1.0, 0.0) if price is None else (0.0, price)

    def strength(target: Target) -> _Rank:
        """The dearest first: of strength, nothing else tells."""
        price = _price(target)
        return (1.0, 0.0) if price is None else (0.0, -price)

    def middling(target: Target) -> _Rank:
        price = _price(target)
        return (1.0, 0.0) if not price else (0.0, abs(math.log(price / middle)))

    def fast(target: Target) -> _Rank | None:
        return thrift(target) if _price(target) is not None or _SMALL.search(target.model) else None

    def reasoning(target: Target) -> _Rank | None:
        able = _able(target, "reasoning", _REASONS)
        return None if able is None else (able, *strength(target))

    def vision(target: Target) -> _Rank | None:
        able = _able(target, "vision")
        return None if able is None else (able, *middling(target))

    def tools(target: Target) -> _Rank | None:
        able = _able(target, "tool_calls")
        return None if able is None else (able, *middling(target))

    def large(target: Target) -> _Rank | None:
        window = target.facts.context_window
        return None if window is None else (-window, *thrift(target))

    def coding(target: Target) -> _Rank | None:
        if _CODES.search(target.model):
            return (0.0, *strength(target))
        able = _able(target, "tool_calls")
        return None if able is None else (1.0 + able, *strength(target))

    return {
        "fast": fast,
        "reasoning": reasoning,
        "vision": vision,
        "tools": tools,
        "large": large,
        "balanced": middling,
        "coding": coding,
    }


def _able(target: Target, capability: str, names: "re.Pattern[str] | None" = None) -> float | None:
    """Returns how surely a model can do something: 0 if that is said of itself, 1 if only of its provider; None if it cannot."""
    own = target.facts.capabilities
    if own is not None:
        return 0.0 if capability in own else None
    if names is not None and names.search(target.model):
        return 0.0
    return 1.0 if capability in target.provider.capabilities else None
