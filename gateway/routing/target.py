"""A target: one model of one provider, as an agent or a request uses it."""

from dataclasses import dataclass, field

from twinspan.v1.content_pb2 import Usage

from gateway.providers.provider import Provider
from gateway.routing.facts import UNKNOWN, ModelFacts


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider, as an agent or a request uses it.

    Attributes:
        provider: Who answers.
        model: The model's name at the provider.
        agent: The agent through which it is asked; empty if the model was named itself.
        facts: What is known of the model.
        weight: Its share, with the strategy `weighted`, and what speaks for it beside its figures, with `balanced`.
        max_context: Most tokens of a conversation, if that is less than the model takes.
        max_output: Most tokens that an answer may be taken to have, if that is less than the model gives.
    """

    provider: Provider
    model: str
    agent: str = ""
    facts: ModelFacts = field(default=UNKNOWN, compare=False, repr=False)
    weight: float = 1.0
    max_context: int | None = None
    max_output: int | None = None

    @classmethod
    def of(cls, provider: Provider, model: str, agent: str = "") -> "Target":
        """Returns a target with what is known of its model."""
        return cls(provider, model, agent, provider.facts.of(model))

    @property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, as far as anybody says; else what its provider can."""
        own = self.facts.capabilities
        return frozenset(self.provider.capabilities) if own is None else own

    @property
    def key(self) -> tuple[str, str, str]:
        """Agent, provider and model: what tells targets apart in state, metrics and statistics."""
        return (self.agent, self.provider.name, self.model)

    @property
    def idle_seconds(self) -> float:
        """How long a stream of it may be silent: longer if the model is known to reason, which some providers do in silence."""
        provider = self.provider
        known = self.facts.capabilities
        return provider.thinking_idle_seconds if known is not None and "reasoning" in known else provider.timeouts.idle

    @property
    def context_window(self) -> int | None:
        """Most tokens of a conversation; None if nobody says."""
        return self.facts.context_window if self.max_context is None else self.max_context

    @property
    def blended_usd(self) -> float | None:
        """What a million tokens cost in US dollars, three of four of them read; None if the prices are not known."""
        if self.costs_nothing:
            return 0.0
        prices = self.facts.prices
        return None if prices is None else (3 * prices.input + prices.output) / 4

    @property
    def costs_nothing(self) -> bool:
        """Whether one request more costs nothing: here, or by how its provider is paid."""
        provider = self.provider
        return provider.free or (provider.billing is not None and provider.billing.costs_nothing(self.model))

    def cost_usd(self, usage: Usage | None) -> float | None:
        """Returns what a request cost that consumed this, in US dollars; None if the price is not known, or what was consumed."""
        if self.costs_nothing:
            return 0.0
        prices = self.facts.prices
        return None if prices is None or usage is None else prices.cost(usage)

    def estimated_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Returns about what a request of this size will cost, in US dollars; None if the price is not known."""
        if self.costs_nothing:
            return 0.0
        prices = self.facts.prices
        if prices is None:
            return None
        return prices.plain_cost(input_tokens, output_tokens if self.max_output is None else min(output_tokens, self.max_output))
