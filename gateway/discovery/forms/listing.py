"""What every form of a list of models comes to, and how its entries are read: nothing in them is taken on trust.

One bad entry never costs the others: it is dropped and counted. A field that is not what it should be is a field that is not there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from gateway.routing.catalogue import MODEL_NAME_LIMIT
from gateway.routing.facts import UNKNOWN, ModelFacts

MOST_MODELS: Final = 10_000
"""Most models of one provider; the rest is dropped."""

_LARGEST = 2**53
_LAST_SECOND = 253_402_300_799  # of the year 9999, after which dates cannot be written
_DECODER: Final = msgspec.json.Decoder()


class UnreadableError(Exception):
    """A body that is no list of models."""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that a provider says it has.

    Attributes:
        id: Its name, as requests give it.
        facts: What the provider says of it; its capabilities are for `can` and `cannot` to say.
        can: Capabilities that it has beyond its provider's.
        cannot: Those of its provider that it has not.
    """

    id: str
    facts: ModelFacts = UNKNOWN
    can: frozenset[str] = frozenset()
    cannot: frozenset[str] = frozenset()

    def capabilities(self, provider: Iterable[str]) -> frozenset[str] | None:
        """Returns what the model can do, given what its provider can; None if the provider said nothing of it."""
        if not self.can and not self.cannot:
            return None
        return (frozenset(provider) | self.can) - self.cannot


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, or the whole.

    Attributes:
        models: In the order in which they are listed, each once.
        dropped: How many entries were none.
        next: What asks for the next part; empty if this was the last.
    """

    models: tuple[FoundModel, ...]
    dropped: int = 0
    next: str = ""


@dataclass(slots=True)
class Able:
    """Collects what a model can do and what it cannot."""

    can: set[str] = field(default_factory=set)
    cannot: set[str] = field(default_factory=set)

    def says(self, capability: str, able: object) -> None:
        """Notes what is said of a capability; what is neither true nor false says nothing."""
        if able is True:
            self.can.add(capability)
        elif able is False:
            self.cannot.add(capability)


def decoded(body: bytes) -> Any:
    """Returns what a body says.

    Raises:
        UnreadableError: It is no JSON.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreadableError from error


def entries(content: Any, name: str) -> list[Any]:
    """Returns the list that an object holds under a name.

    Raises:
        UnreadableError: It holds none.
    """
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise UnreadableError
    return found


def page(items: Iterable[Any], read: Callable[[Mapping[str, Any]], FoundModel | None], following: object = None) -> Page:
    """Returns a page.

    Args:
        items: Its entries.
        read: Reads one of them; None if it is no model that can be asked for.
        following: What asks for the next page, if the provider says so.
    """
    models: dict[str, FoundModel] = {}
    dropped = 0
    for item in items:
        model = read(item) if isinstance(item, dict) else None
        if model is None or model.id in models or not is_name(model.id) or len(models) >= MOST_MODELS:
            dropped += 1
        else:
            models[model.id] = model
    return Page(tuple(models.values()), dropped, following if isinstance(following, str) and is_token(following) else "")


def is_name(text: object) -> bool:
    """Tells whether this can be a model's name: some printable characters, no blanks at its ends, and not too many of them."""
    return isinstance(text, str) and 0 < len(text) <= MODEL_NAME_LIMIT and text.isprintable() and text == text.strip()


def is_token(text: str) -> bool:
    """Tells whether this can be what asks for the next page."""
    return 0 < len(text) <= 1024 and text.isascii() and text.isprintable()


def count(*values: object) -> int | None:
    """Returns the first of these that is a number of tokens: whole and positive."""
    for value in values:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST:
            return value
    return None


def dollars(value: object, times: float = 1) -> float | None:
    """Returns a price, given as a number or a text, `times` it; None if it is none or below zero."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        price = float(value) * times
    except (ValueError, OverflowError):
        return None
    return round(price, 9) if 0 <= price < _LARGEST else None


def seconds(value: object) -> int:
    """Returns a time in seconds since 1970, given so or as RFC 3339 has it; 0 if it is none."""
    if isinstance(value, str):
        try:
            date = datetime.fromisoformat(value)
            return max(0, int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()))
        except (ValueError, OverflowError):
            return 0
    moment = count(value) or 0
    return moment if moment <= _LAST_SECOND else 0


def texts(value: object) -> frozenset[str]:
    """Returns the texts in a list; none if it is no list."""
    return frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()


def inner(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns the object that another holds under a name; an empty one if it holds none."""
    found = content.get(name)
    return found if isinstance(found, dict) else {}
