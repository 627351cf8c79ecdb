"""Log probabilities of a chat as those of a response, which must have every field. Above is the writer."""

from typing import Any

import msgspec


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


_LOGPROBS = msgspec.json.Decoder(_Logprobs | None)


def of_text(text: str) -> list[dict[str, Any]]:
    """Returns what a chat's `logprobs`, as JSON text, say of its text; nothing if they have another form."""
    try:
        said = _LOGPROBS.decode(text)
    except msgspec.MsgspecError:
        return []
    tokens = said.content if said is not None else None
    return [{**_shown(token), "top_logprobs": list(map(_shown, token.top_logprobs or ()))} for token in tokens or ()]


def _shown(token: _Alternative) -> dict[str, Any]:
    spelt = token.bytes if token.bytes is not None else list(token.token.encode("utf-8", "replace"))
    return {"token": token.token, "logprob": token.logprob, "bytes": spelt}
