"""What is known of each provider's models, put together: what is configured, over what was found, over what the registry has.

It is done while a catalogue is compiled, off the hot path. Pure: no I/O.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gateway.config.schema import Config, ModelInfoConfig
from gateway.discovery.forms.listing import FoundModel
from gateway.discovery.registry import ModelRegistry
from gateway.providers.provider import Provider
from gateway.routing.facts import UNKNOWN, KnownModels, ModelFacts, Prices


def _nothing(_providers: Mapping[str, str]) -> Mapping[str, tuple[FoundModel, ...]]:
    return {}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of models beyond the configuration.

    Attributes:
        registry: What is known of them in general.
        found: Returns what each of some providers said it has, given their addresses by name.
    """

    registry: ModelRegistry
    found: Callable[[Mapping[str, str]], Mapping[str, tuple[FoundModel, ...]]] = _nothing


def informed(providers: Mapping[str, Provider], config: Config, knowledge: Knowledge | None) -> dict[str, Provider]:
    """Returns the providers with what is known of their models."""
    addresses = {name: provider.url_text for name, provider in providers.items()}
    found = knowledge.found(addresses) if knowledge is not None and config.discovery.enabled else {}
    registry = knowledge.registry if knowledge is not None else None
    informed: dict[str, Provider] = {}
    for name, provider in providers.items():
        configured = config.providers.get(name)
        infos = configured.model_info if configured is not None else {}
        informed[name] = _informed(provider, infos, found.get(name), None if provider.free else registry)
    return informed


def _informed(
    provider: Provider,
    infos: Mapping[str, ModelInfoConfig],
    found: tuple[FoundModel, ...] | None,
    registry: ModelRegistry | None,
) -> Provider:
    by_name = {model.id: model for model in found or ()}
    is_open = provider.models is None
    known = registry.models(provider.name, provider.base_url) if registry is not None and is_open and found is None else ()
    provider = replace(provider, found=tuple(by_name) if is_open else (), known=known)

    def facts(model: str) -> ModelFacts:
        said = by_name.get(model)
        general = registry.facts(provider.name, provider.base_url, model) if registry is not None else UNKNOWN
        if said is not None:
            general = replace(said.facts, capabilities=said.capabilities(provider.capabilities)).over(general)
        return _configured(infos[model], general) if model in infos else general

    names = dict.fromkeys((*provider.listed, *infos))
    return replace(provider, facts=KnownModels({model: facts(model) for model in names}, facts if registry is not None else None))


def _configured(info: ModelInfoConfig, known: ModelFacts) -> ModelFacts:
    """Returns what is known of a model, with what the configuration says in place of it."""
    own = ModelFacts(
        context_window=info.context_window,
        max_tokens=info.max_tokens,
        capabilities=None if info.capabilities is None else frozenset(info.capabilities),
        prices=_prices(info, known.prices),
    )
    return own.over(known)


def _prices(info: ModelInfoConfig, known: Prices | None) -> Prices | None:
    """Returns the configured prices, which hold for requests of any size; None if there are none.

    A price of input brings its own price of cached input or none: another's could not be told from it.
    """
    given = (info.input_cost_per_1m, info.output_cost_per_1m, info.cached_input_cost_per_1m, info.cache_write_cost_per_1m)
    if given == (None,) * 4 or (given[:2] == (None, None) and known is None):
        return None
    if known is None:
        return Prices(given[0] or 0.0, given[1] or 0.0, given[2], given[3])
    read, written, cached, kept = given
    if read is None:
        cached = known.cached_input if cached is None else cached
        kept = known.cache_write if kept is None else kept
    return Prices(known.input if read is None else read, known.output if written is None else written, cached, kept)
