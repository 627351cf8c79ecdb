"""The catalogue: every name that a request may give for its model, and the targets behind it.

It is compiled from one configuration, and from what is known of the providers' models, and never changes; a reload makes another,
and so does a round of discovery. What is learnt while serving (cooldowns, turns of round-robin) lives outside it, in
`RoutingState`, and so outlives both.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from twinspan.v1.content_pb2 import Usage
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.routing.cooldown import Cooldown, CooldownSettings
from gateway.routing.facts import UNKNOWN, ModelFacts
from gateway.routing.strategies import STRATEGIES, Strategy

_DEFAULT_PROVIDERS: Mapping[str, str] = {"audio": "openai", "images": "openai", "moderations": "openai", "rerank": "cohere"}
"""Who answers requests that name no model, by the kind of service; if it is configured."""

MODEL_NAME_LIMIT = 256
"""Most characters of a model's name."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider, as an agent or a request uses it.

    Attributes:
        provider: Who answers.
        model: The model's name at the provider.
        agent: The agent through which it is asked; empty if the model was named itself.
        facts: What is known of the model.
    """

    provider: Provider
    model: str
    agent: str = ""
    facts: ModelFacts = field(default=UNKNOWN, compare=False, repr=False)

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

    def cost_usd(self, usage: Usage | None) -> float | None:
        """Returns what a request cost that consumed this, in US dollars; None if the price is not known, or what was consumed."""
        if self.provider.free:
            return 0.0
        prices = self.facts.prices
        return None if prices is None or usage is None else prices.cost(usage)


@dataclass(frozen=True, slots=True)
class Agent:
    """A name that stands for several targets.

    Attributes:
        name: What clients ask for.
        targets: In configured order, at least one.
        strategy: In which order they are tried.
        cooldown: When one of them is passed over.
        max_retries: How often one target is tried again before the next.
        system_prompt: Instructions put before the conversation; empty for none.
        force_system_prompt: Whether they replace the client's own.
        description: What the agent is for.
    """

    name: str
    targets: tuple[Target, ...]
    strategy: str = "fallback"
    cooldown: CooldownSettings = field(default_factory=CooldownSettings)
    max_retries: int = 0
    system_prompt: str = ""
    force_system_prompt: bool = False
    description: str = ""


@dataclass(slots=True)
class RoutingState:
    """What routing learns while it serves. It is bounded by the configured targets: `forget` drops the rest after a reload."""

    cooldowns: dict[tuple[str, str, str], Cooldown] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)

    def cooldown(self, target: Target) -> Cooldown:
        """Returns the recent past of a target."""
        found = self.cooldowns.get(target.key)
        if found is None:
            found = self.cooldowns[target.key] = Cooldown()
        return found

    def next_turn(self, agent: str) -> int:
        """Returns how many requests the agent has had before, and counts this one."""
        turn = self.turns.get(agent, 0)
        self.turns[agent] = turn + 1
        return turn

    def forget(self, agents: Iterable[Agent]) -> None:
        """Drops what is known of targets and agents that are configured no more."""
        agents = list(agents)
        keys = {target.key for agent in agents for target in agent.targets}
        self.cooldowns = {key: value for key, value in self.cooldowns.items() if key in keys}
        names = {agent.name for agent in agents}
        self.turns = {name: turn for name, turn in self.turns.items() if name in names}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        name: What the client asked for.
        agent: The agent of that name; None if it is a model's.
        targets: Those that may answer, in configured order.
    """

    name: str
    agent: Agent | None
    targets: tuple[Target, ...]

    @property
    def seconds(self) -> float:
        """How long a request may take, all attempts together: what the most patient of its targets allows."""
        return max(target.provider.request_seconds for target in self.targets)

    @property
    def max_retries(self) -> int:
        """How often one target is tried again before the next."""
        return self.agent.max_retries if self.agent else 0

    def only(self, provider: str) -> "Route":
        """Returns the part of the route that leads to one provider.

        Raises:
            GatewayError: None does.
        """
        targets = tuple(target for target in self.targets if target.provider.name == provider)
        if not targets:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                f"What this request goes on from is with the provider '{provider}', which does not offer '{self.name}' here."
                " Name a model of that provider, or send the whole conversation.",
                param="model",
            )
        return replace(self, targets=targets)

    def plan(self, state: RoutingState, now: float) -> Sequence[Target]:
        """Returns the targets in the order in which they are to be tried; those that cool down are left out.

        If all of them do, none is left out, since an answer is still likelier than without trying.
        """
        if self.agent is None:
            return self.targets
        order: Strategy[Target] = STRATEGIES[self.agent.strategy]
        ordered = order(self.targets, state.next_turn(self.agent.name))
        return [target for target in ordered if state.cooldown(target).available(now)] or ordered


@dataclass(frozen=True, slots=True)
class Listing:
    """A name in the catalogue, for those who ask what there is.

    Attributes:
        id: The name.
        owned_by: The provider's name, or `twinspan` for an agent.
        target: The first target behind the name.
        source: Whether it is an `agent`, or a model that is `configured`, was `discovered`, or is in the `registry` alone.
    """

    id: str
    owned_by: str
    target: Target
    source: str

    @classmethod
    def of(cls, route: Route) -> "Listing":
        """Returns what a route is listed as."""
        target = route.targets[0]
        provider = target.provider
        if route.agent is not None:
            return cls(route.name, "twinspan", target, "agent")
        if provider.models is not None:
            return cls(route.name, provider.name, target, "configured")
        return cls(route.name, provider.name, target, "discovered" if provider.found else "registry")


class Catalogue:
    """All agents and models of one configuration."""

    def __init__(self, providers: Sequence[Provider], agents: Sequence[Agent], idle: Iterable[str] = ()) -> None:
        """Compiles the names; the order of providers and agents is that of the configuration, and it decides between equals.

        Args:
            providers: Who answers.
            agents: Names for several targets.
            idle: Agents that are configured but have no target at present.
        """
        self.agents: Mapping[str, Agent] = {agent.name: agent for agent in agents}
        self.providers: Mapping[str, Provider] = {provider.name: provider for provider in providers}
        self._open = tuple(provider for provider in providers if provider.models is None)
        self._idle = frozenset(idle)
        self._routes = {name: Route(name, None, tuple(targets)) for name, targets in offered(providers).items()}
        self._routes |= {agent.name: Route(agent.name, agent, agent.targets) for agent in agents}
        for name in self._idle:
            self._routes.pop(name, None)
        self._listings = {
            name: Listing.of(route) for name, route in sorted(self._routes.items(), key=lambda item: item[1].agent is None)
        }

    def route(self, name: str) -> Route:
        """Returns where a request for `name` goes.

        An agent's name comes before a model's. `provider/model` names one provider's. A model that no provider lists goes to the
        first provider, in configured order, that has no list: such a provider is taken to offer anything.

        Raises:
            GatewayError: The name is empty, too long, or nobody offers it; or it is an agent's that has no target at present.
        """
        route = self._routes.get(name)
        if route is not None:
            return route
        if name in self._idle:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_CONFIGURED,
                f"No provider is known to offer any model of the agent '{name}' at present. Try again later, or another model.",
                param="model",
            )
        if not name:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                "You must name a model. GET /v1/models lists those there are.",
                param="model",
            )
        if len(name) > MODEL_NAME_LIMIT:
            raise GatewayError(
                ErrorKind.ERROR_KIND_INVALID_REQUEST,
                f"The model's name is longer than {MODEL_NAME_LIMIT} characters.",
                param="model",
            )
        prefix, slash, model = name.partition("/")
        provider = self.providers.get(prefix) if slash and model else None
        if provider is not None and (provider.models is None or model in provider.models):
            return Route(name, None, (Target.of(provider, model),))
        if provider is None and self._open:
            return Route(name, None, (Target.of(self._open[0], name),))
        raise GatewayError(
            ErrorKind.ERROR_KIND_MODEL_NOT_FOUND,
            f"The model '{name}' does not exist here. GET /v1/models lists those there are.",
            param="model",
        )

    def default_route(self, service: str) -> Route:
        """Returns where a request goes that names no model: to the service's usual provider, else to the first that offers it.

        The target's model is empty, so that the provider takes its own default.

        Args:
            service: The kind of service, such as `images`: one of the capabilities that the configuration knows.

        Raises:
            GatewayError: No provider offers it.
        """
        usual = self.providers.get(_DEFAULT_PROVIDERS.get(service, ""))
        candidates = [usual] if usual is not None else [p for p in self.providers.values() if service in p.capabilities]
        if not candidates:
            raise GatewayError(
                ErrorKind.ERROR_KIND_NOT_CONFIGURED,
                f"No provider offers {service} here. Name a model, or configure a provider with the capability '{service}'.",
                param="model",
            )
        return Route("", None, (Target(candidates[0], ""),))

    def listings(self) -> Iterable[Listing]:
        """Returns every name there is: agents first, then models that are configured, found, and known; in configured order."""
        return self._listings.values()

    def listing(self, name: str) -> Listing | None:
        """Returns what there is of this name; None if there is nothing."""
        return self._listings.get(name)


def offered(providers: Sequence[Provider]) -> dict[str, list[Target]]:
    """Returns who offers each model that is listed: configured ones first, then those found, then those only known in general.

    A name that is found may begin as `provider/model` does for another provider of this gateway. Then it means that one's, and the
    found model is listed with its own provider's name before it.
    """
    names = {provider.name for provider in providers}
    models: dict[str, list[Target]] = {}
    for provider in providers:
        for model in provider.models or ():
            models.setdefault(model, []).append(Target.of(provider, model))
    for provider in providers:
        for model in provider.found:
            models.setdefault(_unambiguous(model, provider, names), []).append(Target.of(provider, model))
    for provider in providers:
        for model in provider.known:
            # Nobody asked the provider, so it is worth a first try, but no second one after another provider's failure.
            models.setdefault(_unambiguous(model, provider, names), [Target.of(provider, model)])
    return models


def _unambiguous(model: str, provider: Provider, names: Collection[str]) -> str:
    prefix, slash, _ = model.partition("/")
    return f"{provider.name}/{model}" if slash and prefix in names and prefix != provider.name else model
