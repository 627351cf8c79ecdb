"""What is known of a model beside its name: sizes, abilities and prices. Whatever is not known is None, and never guessed."""

from dataclasses import dataclass
from typing import Final

from twinspan.v1.content_pb2 import Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model's tokens cost, in US dollars a million.

    Attributes:
        input: Tokens read.
        output: Tokens written, those of reasoning among them.
        cached_input: Tokens read from the provider's cache; None if they cost what others do.
        cache_write: Tokens written to the provider's cache; None if they cost what others do.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def cost(self, usage: Usage) -> float:
        """Returns what a request cost, in US dollars. Cached tokens are a part of those read."""
        cached, written = usage.cached_input_tokens, usage.cache_creation_input_tokens
        plain = max(0, usage.input_tokens - cached - written)
        return (
            plain * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + usage.output_tokens * self.output
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
    """

    context_window: int | None = None
    max_tokens: int | None = None
    capabilities: frozenset[str] | None = None
    prices: Prices | None = None
    created: int = 0


UNKNOWN: Final = ModelFacts()
"""What is known of a model of which nothing is known."""
