"""What a provider's billing comes to, compiled from its configuration. Pure."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from gateway.config.billing import BillingConfig, QuotaConfig


@dataclass(frozen=True, slots=True)
class Terms:
    """How a provider is paid.

    Attributes:
        model: `subscription`, `credit`, `free` or `mixed`.
        quota: Where it says what is left; None for nowhere.
        credit_usd: What there is to spend; None if that is not counted.
        exhausted_below: When this much or less is left, it is exhausted.
        free_models: Which models cost nothing although others do: names and patterns.
        prefer_free: Whether its targets that cost nothing go before all others of an agent.
    """

    model: str
    quota: QuotaConfig | None = field(default=None, repr=False)
    credit_usd: float | None = None
    exhausted_below: float = 0.0
    free_models: tuple[str, ...] = ()
    prefer_free: bool = False

    @classmethod
    def of(cls, configured: BillingConfig | None) -> "Terms | None":
        """Returns what is configured; None if nothing is."""
        if configured is None:
            return None
        quota = configured.quota if configured.quota.source != "none" else None
        return cls(
            configured.model,
            quota,
            configured.credit_usd,
            configured.exhausted_below,
            configured.free_models,
            configured.prefer_free,
        )

    def is_free(self, model: str) -> bool:
        """Tells whether a model is among those that cost nothing although others do."""
        return any(fnmatchcase(model, pattern) for pattern in self.free_models)

    def costs_nothing(self, model: str) -> bool:
        """Tells whether one request more to a model costs nothing."""
        return self.model in {"free", "subscription"} or self.is_free(model)
