"""The contents of messages: the parts of Responses as the parts of chat.

Fields of a part that nobody knows go along. Above is `conversation`.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec import Raw

from gateway.responses.translation.reading import (
    Fields,
    as_it_came,
    given,
    is_string,
    json_objects,
    lacking,
    optional,
    refused,
    required,
    string,
)

_TEXTS = frozenset({"input_text", "output_text", "text"})
_LEFT_OUT = frozenset({"type", "annotations", "logprobs"})
"""What a part of an answer has that a chat cannot be told again."""


def content(raw: Raw, param: str) -> Any:
    """Returns a message's content as chat has it: a string where it is one text, else an array of parts.

    Args:
        raw: The content, a string or an array of parts.
        param: Where it is.

    Raises:
        GatewayError: A part is none, or chat has nothing like it.
    """
    if is_string(raw):
        return string(raw, param)
    parts = [part(fields, f"{param}[{number}]") for number, fields in enumerate(json_objects(raw, param))]
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return parts[0]["text"]  # which every provider takes, while some take no arrays
    return parts


def said(raw: Raw, param: str) -> tuple[Any, str | None]:
    """Returns what an assistant has said, as a chat's `content` and `refusal`; either is None if there is none.

    Raises:
        GatewayError: A part is none, or chat has nothing like it.
    """
    if is_string(raw):
        return string(raw, param), None
    parts: list[Any] = []
    refusals: list[str] = []
    for number, fields in enumerate(json_objects(raw, param)):
        place = f"{param}[{number}]"
        if optional(fields, "type", place) == "refusal":
            refusals.append(required(fields, "refusal", place))
        else:
            parts.append(part(fields, place))
    refusal = "".join(refusals) if refusals else None
    if all(entry.keys() == {"type", "text"} for entry in parts):  # few providers take an assistant's content in parts
        return ("".join(entry["text"] for entry in parts) if parts or refusal is None else None), refusal
    return parts, refusal


def part(fields: Fields, param: str) -> dict[str, Any]:
    """Returns a part as chat has it.

    Raises:
        GatewayError: It is none, or chat has nothing like it.
    """
    kind = required(fields, "type", param)
    writer = _PARTS.get(kind)
    if writer is None:
        known = ", ".join(_PARTS)
        raise refused(
            f"{param}.type", f"'{param}' is a part of type '{kind[:64]}', for which chat has nothing. It may be: {known}."
        )
    return writer(fields, param)


def _text(fields: Fields, param: str) -> dict[str, Any]:
    return {"type": "text", "text": required(fields, "text", param), **_more(fields, _LEFT_OUT | {"text"})}


def _image(fields: Fields, param: str) -> dict[str, Any]:
    url = optional(fields, "image_url", param)
    if url is None:
        raise _no_file(fields, param, "file_id", "Give image_url: an https: or a data: URL.")
    detail = optional(fields, "detail", param)
    image = {"url": url} if detail is None else {"url": url, "detail": "high" if detail == "original" else detail}
    return {"type": "image_url", "image_url": image, **_more(fields, _LEFT_OUT | {"image_url", "detail", "file_id"})}


def _file(fields: Fields, param: str) -> dict[str, Any]:
    names = ("file_data", "file_id", "filename")
    file = {name: value for name in names if (value := optional(fields, name, param)) is not None}
    if not file.keys() & {"file_data", "file_id"}:
        raise _no_file(fields, param, "file_url", "Give file_data: a data: URL.")
    return {"type": "file", "file": file, **_more(fields, _LEFT_OUT | {*names, "file_url", "detail"})}


def _audio(fields: Fields, param: str) -> dict[str, Any]:
    raw = given(fields, "input_audio")
    if raw is None:
        raise refused(f"{param}.input_audio", f"'{param}.input_audio' must be given.")
    return {"type": "input_audio", "input_audio": as_it_came(raw), **_more(fields, _LEFT_OUT | {"input_audio"})}


def _no_file(fields: Fields, param: str, name: str, instead: str) -> Exception:
    if given(fields, name) is not None:
        return lacking(f"{param}.{name}", f"'{name}' of '{param}'", instead)
    return refused(param, f"'{param}' holds nothing. {instead}")


def _more(fields: Fields, known: AbstractSet[str]) -> dict[str, Any]:
    return {name: as_it_came(raw) for name, raw in fields.items() if name not in known}


_PARTS: Mapping[str, Callable[[Fields, str], dict[str, Any]]] = {
    **dict.fromkeys(sorted(_TEXTS), _text),
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
