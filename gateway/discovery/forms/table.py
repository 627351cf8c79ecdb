"""The wire forms by name: where each is asked for, and what reads it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from gateway.discovery.forms import anthropic, cohere, gemini, ollama, openai, openrouter
from gateway.discovery.forms.listing import Page
from gateway.providers.provider import Provider


@dataclass(frozen=True, slots=True)
class Form:
    """How a kind of provider lists its models.

    Attributes:
        parse: Reads a body.
        path: Where the list is, below the address of the API.
        own: The end of the addresses under which OpenAI's API is offered, where the provider's own list stands elsewhere.
        instead: What stands there in place of `own`.
        needs: A header of the credential without which its own list cannot be had; the other one's is then taken.
        without: A header that its own list does not take.
        query: What asks for a page of the greatest size.
        following: The parameter that asks for the next page.
    """

    parse: Callable[[bytes], Page]
    path: str = "/models"
    own: str = ""
    instead: str = ""
    needs: str = ""
    without: str = ""
    query: tuple[tuple[str, str], ...] = ()
    following: str = ""

    def address(self, provider: Provider, after: str = "") -> str:
        """Returns where a provider is asked for its list, or for the page of it that follows."""
        if not self._is_own(provider):
            return provider.url("/models")
        query = dict(self.query)
        if after:
            query[self.following] = after
        base = provider.base_url.removesuffix(self.own) + self.instead if self.own else provider.base_url
        return f"{base}{self.path}?{urlencode(query)}" if query else f"{base}{self.path}"

    def headers(self, provider: Provider) -> dict[str, str]:
        """Returns what a request for the list carries."""
        left_out = {"content-type", self.without.lower()} if self._is_own(provider) else {"content-type"}
        return {name: value for name, value in provider.headers.items() if name.lower() not in left_out}

    def _is_own(self, provider: Provider) -> bool:
        """Tells whether the provider's own list can be had, from what is known of where it is."""
        if not provider.base_url.endswith(self.own):
            return False
        return not self.needs or self.needs in provider.headers


FORMS: Final[Mapping[str, Form]] = {
    "openai": Form(openai.parse),
    "openrouter": Form(openrouter.parse),
    "anthropic": Form(anthropic.parse, query=(("limit", "1000"),), following="after_id"),
    "gemini": Form(
        gemini.parse,
        own="/openai",
        needs="x-goog-api-key",
        without="Authorization",  # which Google's own interface takes for OAuth's
        query=(("pageSize", "1000"),),
        following="pageToken",
    ),
    "cohere": Form(cohere.parse, own="/compatibility/v1", instead="/v1", query=(("page_size", "1000"),), following="page_token"),
    "ollama": Form(ollama.parse, own="/v1", path="/api/tags"),
}
"""By the name that `listing_style` gives them."""
