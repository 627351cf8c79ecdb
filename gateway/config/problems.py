"""Says what is wrong with a configuration: every mistake with its file, its path and what to do about it."""

import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.routing import MODEL_NAME, SELECTOR

Place = tuple[str | int, ...]


class ConfigError(Exception):
    """A configuration that cannot be served from.

    Attributes:
        problems: All its mistakes, a sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = "The configuration has a mistake:" if count == 1 else f"The configuration has {count} mistakes:"
        super().__init__("\n".join((heading, *(f"  {problem}" for problem in self.problems))))


def describe(error: ValidationError, model: type[BaseModel]) -> list[tuple[Place, str]]:
    """Returns the place of each mistake, and what is wrong there."""
    details = error.errors(include_url=False, include_input=False)
    places = [_clean(detail["loc"]) for detail in details]
    described = []
    for place, detail in zip(places, details, strict=True):
        # Items that are wrong themselves do not count, so pydantic takes the sequence for too short as well.
        within = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if not (detail["type"] == "too_short" and within):
            described.append((place, _message(place, detail, model)))
    return described


def path(place: Place) -> str:
    """Returns a place as it is written in messages, such as `agents.fast.models[0].provider`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns a question for the most similar of the known names; empty if none is similar."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


def _message(place: Place, detail: ErrorDetails, model: type[BaseModel]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_at(model, place[:-1])
            return f"there is no such key.{nearest(str(place[-1]), known) or ' Known are: ' + ', '.join(known) + '.'}"
        case "missing":
            return "is missing."
        case "value_error":
            return f"{detail['msg'].removeprefix('Value error, ')}."
        case "string_pattern_mismatch" if "[A-Za-z0-9._-]" in detail["msg"]:
            return "must be 1 to 64 letters, digits, dots, dashes and underscores, and begin with a letter or digit."
        case "model_type":
            return "must be a mapping."
        case "tuple_type":
            return "must be a list."
        case "too_short":
            return "must have at least one item."
        case "string_too_short":
            return "must not be empty."
        case _:
            text = detail["msg"].replace("Input should be", "must be").replace("valid dictionary", "mapping")
            return f"{text[0].lower()}{text[1:]}."


def _clean(place: Place) -> Place:
    return tuple(step for step in place if step not in {MODEL_NAME, SELECTOR, "[key]"})


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    """Returns the keys that a mapping of the configuration may have."""
    annotation: Any = model
    for step in place:
        annotation = _inner(annotation, step)
    found = _model_in(annotation)
    return list(found.model_fields) if found else []


def _inner(annotation: Any, step: str | int) -> Any:
    model = _model_in(annotation)
    if model is not None and isinstance(step, str) and step in model.model_fields:
        return model.model_fields[step].annotation
    return _item(annotation)


def _item(annotation: Any) -> Any:
    """Returns the type of what a mapping or sequence holds."""
    for candidate in _members(annotation):
        arguments = typing.get_args(candidate)
        if typing.get_origin(candidate) in {dict, tuple, list}:
            return arguments[1] if typing.get_origin(candidate) is dict else arguments[0]
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    return next((member for member in _members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)), None)


def _members(annotation: Any) -> list[Any]:
    """Returns the alternatives of a type, without what annotates them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return [member for argument in typing.get_args(annotation) for member in _members(argument)]
    return [annotation]
