"""What is known of a model beside its name: sizes, abilities and prices. Whatever is not known is None, and never guessed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from twinspan.v1.content_pb2 import Usage

_MILLION = 1_000_000
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model's tokens cost, in US dollars a million.

    Attributes:
        input: Tokens read.
        output: Tokens written, those of reasoning among them.
        cached_input: Tokens read from the provider's cache; None if they cost what others do.
        cache_write: Tokens written to the provider's cache; None if they cost what others do.
        tiers: The prices of larger requests, as `(above, prices)` with `above` rising: a request that reads more tokens than that,
            cached ones among them, costs these prices for all its tokens.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    tiers: "tuple[tuple[int, Prices], ...]" = ()

    def plain_cost(self, input_tokens: int, output_tokens: int) -> float:
        """Returns what a request costs that reads and writes so many tokens and finds none in a cache, in US dollars."""
        prices = self._of(input_tokens)
        return (input_tokens * prices.input + output_tokens * prices.output) / _MILLION

    def _of(self, input_tokens: int) -> "Prices":
        """Returns the prices of a request that reads so many tokens."""
        prices = self
        for above, larger in self.tiers:
            if input_tokens > above:
                prices = larger
        return prices

    def cost(self, usage: Usage) -> float:
        """Returns what a request cost, in US dollars. Cached tokens are a part of those read."""
        prices = self._of(usage.input_tokens)
        cached, written = usage.cached_input_tokens, usage.cache_creation_input_tokens
        plain = max(0, usage.input_tokens - cached - written)
        return (
            plain * prices.input
            + cached * (prices.input if prices.cached_input is None else prices.cached_input)
            + written * (prices.input if prices.cache_write is None else prices.cache_write)
            + usage.output_tokens * prices.output
        ) / _MILLION


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model.

    Attributes:
        context_window: Most tokens that input and output may have together.
        max_tokens: Most tokens that one answer may have.
        capabilities: What it can do, such as `vision`; None if nobody says, so that the provider's hold.
        prices: What its tokens cost.
        created: When it was made known, in seconds since 1970; 0 if that is not known.
        chats: Whether it can be talked with; None if nobody says.
    """

    context_window: int | None = None
    max_tokens: int | None = None
    capabilities: frozenset[str] | None = None
    prices: Prices | None = None
    created: int = 0
    chats: bool | None = None

    def over(self, other: "ModelFacts") -> "ModelFacts":
        """Returns these facts, and the other's where nothing is known here."""
        return ModelFacts(
            context_window=other.context_window if self.context_window is None else self.context_window,
            max_tokens=other.max_tokens if self.max_tokens is None else self.max_tokens,
            capabilities=other.capabilities if self.capabilities is None else self.capabilities,
            prices=other.prices if self.prices is None else self.prices,
            created=self.created or other.created,
            chats=other.chats if self.chats is None else self.chats,
        )


UNKNOWN: Final = ModelFacts()
"""What is known of a model of which nothing is known."""


class KnownModels:
    """What is known of a provider's models, by name."""

    __slots__ = ("_known", "_look_up", "_remembered")

    def __init__(self, known: Mapping[str, ModelFacts], look_up: Callable[[str], ModelFacts] | None = None) -> None:
        """Makes a table.

        Args:
            known: The models whose facts are at hand: all that are listed.
            look_up: Finds out what is known of another one that somebody asks for, off the hot path; what it says is remembered.
        """
        self._known = known
        self._look_up = look_up
        self._remembered: dict[str, ModelFacts] = {}

    def of(self, model: str) -> ModelFacts:
        """Returns what is known of a model."""
        facts = self._known.get(model)
        if facts is not None:
            return facts
        if self._look_up is None:
            return UNKNOWN
        facts = self._remembered.get(model)
        if facts is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()  # such names come from callers, who may invent any number
            facts = self._remembered[model] = self._look_up(model)
        return facts


NOTHING_KNOWN: Final = KnownModels({})
"""What is known of the models of a provider of which nothing is known."""
