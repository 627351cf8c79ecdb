"""Which models there are: how they are found, and which agents are made of them."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from gateway.config.routing import Strategy
from gateway.config.section import Regex, Seconds, Section

AutoAgentKind: TypeAlias = Literal["fast", "reasoning", "vision", "tools", "large", "balanced", "coding"]
AUTO_AGENT_KINDS: tuple[AutoAgentKind, ...] = ("fast", "reasoning", "vision", "tools", "large", "balanced", "coding")
"""What agents can be made for."""

TargetCount: TypeAlias = Annotated[int, Field(ge=1, le=64)]
AgentPrefix: TypeAlias = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,31})?$")]


class AutoAgentOverride(Section):
    """What is different for one of the agents."""

    strategy: Strategy | None = None
    """In which order its targets are tried."""
    max_targets: TargetCount | None = None
    """Most targets that it has."""
    provider_rgx: Regex | None = None
    """A regular expression that providers' names must match somewhere."""
    model_rgx: Regex | None = None
    """A regular expression that models' names must match somewhere."""


class AutoAgentsConfig(Section):
    """Which agents are made of the catalogue's models, and how."""

    agents: tuple[AutoAgentKind, ...] = AUTO_AGENT_KINDS
    """Which are made."""
    prefix: AgentPrefix = ""
    """What stands before their names."""
    strategy: Strategy = "fallback"
    """In which order their targets are tried."""
    max_targets: TargetCount = 5
    """Most targets that each has."""
    overrides: dict[AutoAgentKind, AutoAgentOverride] = Field(default_factory=dict)
    """What is different for some of them."""


class DiscoveryConfig(Section):
    """Finding out which models providers have."""

    enabled: bool = False
    """Whether providers are asked, at start, at each reload and from time to time."""
    auto_agents: bool = False
    """Whether agents are made of the models there are."""
    auto_agents_config: AutoAgentsConfig = Field(default_factory=AutoAgentsConfig)
    """Which, and how."""
    refresh_seconds: Seconds = 3600
    """Seconds between two rounds."""
