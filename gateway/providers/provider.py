"""A provider, compiled from its configuration: where it is, how to be let in, and what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from yarl import URL

from gateway.access.keys import UNLIMITED, Allowance
from gateway.billing.terms import Terms
from gateway.providers.sender import Timeouts
from gateway.routing.facts import NOTHING_KNOWN, KnownModels


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers requests.

    Attributes:
        name: Its name in the configuration.
        base_url: The address to which the path of an endpoint is added, without a slash at its end.
        chat_url: Where chats go.
        url_text: The same as text.
        headers: What every request to it carries, its credential included.
        facts: What is known of its models, by their names.
        found: The models that it was found to have, if it has no list of its own; it may have others too.
        known: The models that such a provider has in general, if it has no list and was not asked.
        listing_style: In whose form it lists its models, such as `openai`.
        own_headers: What a request carries that is forwarded as it is: the credential, and what is configured.
        account: The account whose credential that is; empty if there is but one, or if none was chosen.
        billing: How it is paid; None if nobody says.
        accounts: The provider as it is asked through each of its accounts, if it has several.
        models: The models it offers; None if it is taken to offer any.
        timeouts: How long each phase of an attempt may last, and the whole of it.
        thinking_idle_seconds: How long a stream of a model that can reason may be silent.
        request_seconds: How long a request may last, all attempts together; at least as long as one attempt.
        retryable_status_codes: Statuses after which another attempt may help.
        stream_options: Whether it knows `stream_options`, with which a stream is asked for its usage.
        empty_stream_as_error: Whether a stream without any output counts as a failure.
        free: Whether its answers cost nothing.
        capabilities: What it can do, the kinds of service that it offers among them.
        places: Where endpoints are that do not stand below `base_url`, by their paths.
        embedding_models: Those models that are known to embed and do nothing else.
        most_embedding_inputs: How many inputs it embeds at once; more are sent in pieces.
        host: The host that answers, with its port if that is not the usual one: what limits are of.
        allowance: What its host may be asked for, by all keys together.
        rerank_style: In whose form it is asked to rerank: `cohere`, `jina` or `voyage`.
        secrets: Texts that must never appear in an error or a log.
    """

    name: str
    base_url: str
    chat_url: URL
    url_text: str
    headers: Mapping[str, str]
    models: tuple[str, ...] | None
    timeouts: Timeouts
    retryable_status_codes: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    stream_options: bool = True
    empty_stream_as_error: bool = True
    free: bool = False
    capabilities: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    embedding_models: frozenset[str] = frozenset()
    most_embedding_inputs: int = 2048
    rerank_style: str = "cohere"
    host: str = ""
    allowance: Allowance = UNLIMITED
    found: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    listing_style: str = "openai"
    facts: KnownModels = field(default=NOTHING_KNOWN, compare=False, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    own_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    account: str = ""
    billing: Terms | None = None
    accounts: "tuple[Provider, ...]" = field(default=(), compare=False, repr=False)
    request_seconds: float = 300.0
    thinking_idle_seconds: float = 600.0

    @property
    def listed(self) -> tuple[str, ...]:
        """The models that it is known by name to offer."""
        return self.models if self.models is not None else self.found or self.known

    @property
    def limited(self) -> bool:
        """Whether there is a limit to what its host may be asked for."""
        return self.allowance is not UNLIMITED

    def url(self, path: str) -> str:
        """Returns the address of an endpoint; `path` begins with a slash."""
        return self.places.get(path) or self.base_url + path

    def cleansed(self, message: str) -> str:
        """Returns `message` without the provider's credential, which some providers repeat in their errors."""
        for secret in self.secrets:
            message = message.replace(secret, "[REDACTED]")
        return message
