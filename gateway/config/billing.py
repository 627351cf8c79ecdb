"""How a provider is paid, and how it is found out what is left of that."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from gateway.config.section import Dollars, Headers, HttpUrl, Seconds, Section

QuotaSource: TypeAlias = Literal["none", "api", "headers"]
Extraction: TypeAlias = Literal["json_path", "regex", "header"]
BillingModel: TypeAlias = Literal["subscription", "credit", "free", "mixed"]
Where: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]


class QuotaConfig(Section):
    """Where a provider says what is left."""

    source: QuotaSource = "none"
    """Nowhere, at an address of its own, or in the headers of each of its answers."""
    url: HttpUrl | None = None
    """The address that is asked with GET, for the source `api`. The provider's credential goes to the provider's own host alone."""
    headers: Headers = Field(default_factory=dict)
    """Headers of that request."""
    interval_seconds: Annotated[Seconds, Field(ge=1)] = 300
    """How often it is asked, and how long an answer without a reset holds."""
    extraction: Extraction | None = None
    """How values are found: by a dotted path into JSON, a regular expression with one group, or a header's name. Without it:
    `json_path` for the source `api`, `header` for the source `headers`."""
    remaining: Where | None = None
    """Where it says what is left, in whatever unit."""
    limit: Where | None = None
    """Where it says how much that is at most."""
    reset: Where | None = None
    """Where it says when there is more: seconds, a duration such as `6m0s`, seconds or milliseconds since 1970, or a date."""

    @property
    def mode(self) -> Extraction:
        """How values are found."""
        return self.extraction or ("header" if self.source == "headers" else "json_path")

    @model_validator(mode="after")
    def _fits_together(self) -> "QuotaConfig":
        if self.source == "none":
            return self
        if self.source == "api" and self.url is None:
            raise ValueError("the source 'api' needs a url")
        if self.source == "headers" and self.mode != "header":
            raise ValueError("the source 'headers' has nothing but headers: leave extraction out")
        if self.remaining is None:
            raise ValueError("say where it tells what is left: give remaining")
        if self.mode == "regex":
            for name, text in (("remaining", self.remaining), ("limit", self.limit), ("reset", self.reset)):
                if text is not None and not _has_one_group(text):
                    raise ValueError(f"{name} must be a regular expression with one group")
        return self


class BillingConfig(Section):
    """How a provider is paid."""

    model: BillingModel
    """A subscription, money that is spent, nothing, or nothing for some models and money for the others."""
    quota: QuotaConfig = Field(default_factory=QuotaConfig)
    """Where it says what is left."""
    credit_usd: Dollars | None = None
    """What there is to spend, ever, in US dollars: `credit` and `mixed`. What was spent is counted here and survives restarts."""
    exhausted_below: Annotated[float, Field(ge=0)] = 0
    """It is taken for exhausted when this much or less is left, in the unit of `remaining`, or of the credit in US dollars."""
    free_models: tuple[Where, ...] = ()
    """The models that cost nothing, of `mixed`: names, or patterns such as `*:free`."""
    prefer_free: bool = False
    """Whether its targets that cost nothing go before all others of an agent."""

    @model_validator(mode="after")
    def _fits_together(self) -> "BillingConfig":
        if (self.model == "mixed") != bool(self.free_models):
            raise ValueError("free_models is for the model 'mixed', which needs it")
        if self.credit_usd is not None and self.model not in {"credit", "mixed"}:
            raise ValueError("credit_usd is for the models 'credit' and 'mixed'")
        return self


def _has_one_group(text: str) -> bool:
    try:
        return re.compile(text).groups == 1
    except re.error:
        return False
