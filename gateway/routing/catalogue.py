"""The catalogue: every name that a request may give for its model, and the targets behind it.

It is compiled from one configuration, and from what is known of the providers' models, and never changes; a reload makes another,
and so does a round of discovery. What is learnt while serving (breakers, turns of round-robin) lives outside it, in
`gateway.routing.state`, and so outlives both.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import UNLIMITED, Allowance
from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.routing.breaker import DEFAULT, BreakerSettings
from gateway.routing.strategies import EVEN, Weights
from gateway.routing.target import Target

_DEFAULT_PROVIDERS: Mapping[str, str] = {"audio": "openai", "images": "openai", "moderations": "openai", "rerank": "cohere"}
"""Who answers requests that name no model, by the kind of service; if it is configured."""

MODEL_NAME_LIMIT = 256
"""Most characters of a model's name."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A name that stands for several targets.

    Attributes:
        name: What clients ask for.
        targets: In configured order, at least one.
        strategy: In which order they are tried.
        breaker: When one of them is left alone.
        max_retries: How often one target is tried again before the next.
        system_prompt: Instructions put before the conversation; empty for none.
        force_system_prompt: Whether they replace the client's own.
        description: What the agent is for.
        session_ttl_seconds: How long an idle conversation keeps its target.
        hedges: Whether another target is asked too where the first takes longer to begin than it mostly does.
        shadow: Whose answer is measured beside, and never given; None for nobody's.
        allowance: What may be asked of it altogether.
    """

    name: str
    targets: tuple[Target, ...]
    strategy: str = "fallback"
    breaker: BreakerSettings = DEFAULT
    max_retries: int = 0
    system_prompt: str = ""
    force_system_prompt: bool = False
    description: str = ""
    session_ttl_seconds: float = 3600.0
    hedges: bool = False
    shadow: Target | None = None
    allowance: Allowance = UNLIMITED


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all routes.

    Attributes:
        routing_strategy: How several providers of one model are ordered: `latency` or `balanced`.
        weights: What counts how much in `balanced`.
        max_cost_usd: What a request may cost at most, as far as can be told ahead; 0 for no limit.
        skips_too_long: Whether targets are left out that a request is too long for.
        reorders_by_latency: Whether the faster of the others come first then.
        retries_too_long: Whether a conversation that was too long for all of them is summarised and sent again.
    """

    routing_strategy: str = "latency"
    weights: Weights = EVEN
    max_cost_usd: float = 0.0
    skips_too_long: bool = False
    reorders_by_latency: bool = False
    retries_too_long: bool = False


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
    def breaker(self) -> BreakerSettings:
        """When a target is left alone."""
        return self.agent.breaker if self.agent else DEFAULT

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

    def __init__(
        self, providers: Sequence[Provider], agents: Sequence[Agent], idle: Iterable[str] = (), rules: Rules | None = None
    ) -> None:
        """Compiles the names; the order of providers and agents is that of the configuration, and it decides between equals.

        Args:
            providers: Who answers.
            agents: Names for several targets.
            idle: Agents that are configured but have no target at present.
            rules: What holds for all routes; None for what does by default.
        """
        self.rules = rules or Rules()
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

    def targets(self) -> Iterable[Target]:
        """Returns every target that is configured or known by name."""
        return (target for route in self._routes.values() for target in route.targets)

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
