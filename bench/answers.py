"""What the mock upstream says: OpenAI-shaped JSON and server-sent events, made once and sent as they are.

The shapes are those of OpenAI's chat completions, unread fields and nulls included, since a gateway has to carry them. Both ends of
the benchmark know these texts: the mock sends them and the load generators check what arrives.
"""

import base64
import json
import struct
from typing import Any

ANSWER_BYTES = 1024
CHUNK_BYTES = 250

_ID = "chatcmpl-BenchAnswer0001"
_CREATED = 1_760_000_000
_MODEL = "model-2026-01-01"
_FINGERPRINT = "fp_0123456789"
# Tokens as models make them: a word with its blank, some punctuation, and now and then what JSON must escape.
_TOKENS = (
    " gate",
    "way",
    " carries",
    " every",
    " token",
    ",",
    " unread",
    ".\n",
    " It",
    ' "never"',
    " holds",
    " one",
    " back",
    "é",
    " \u2013 ",
)
DIMENSIONS = 1536
_NUMBERS = struct.pack(f"<{DIMENSIONS}f", *((place * 37 % 200 - 100) / 1000 for place in range(DIMENSIONS)))
VECTOR = base64.b64encode(_NUMBERS).decode()
"""A vector of the usual length, as the official SDK asks for it."""
END = "And that is the end of the answer."


def dump(value: Any) -> bytes:
    """Returns compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def text(length: int) -> str:
    """Returns ASCII prose of `length` characters that ends in `END`."""
    words = "The gateway reads one answer and writes it again; nothing is lost on the way. "
    return (words * (length // len(words) + 1))[: length - len(END)] + END


def pieces(count: int) -> list[str]:
    """Returns the texts of a stream of `count` chunks, in order; each makes a chunk of about `CHUNK_BYTES`."""
    return [_TOKENS[number % len(_TOKENS)] for number in range(count)]


def usage(completion_tokens: int) -> dict[str, Any]:
    """Returns OpenAI's usage object."""
    return {
        "prompt_tokens": 42,
        "completion_tokens": completion_tokens,
        "total_tokens": 42 + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def unary() -> bytes:
    """Returns the body of an unary answer, `ANSWER_BYTES` long."""

    def of(content: str) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        info = {"id": _ID, "object": "chat.completion", "created": _CREATED, "model": _MODEL}
        return dump({**info, "choices": [choice], "usage": usage(90), "system_fingerprint": _FINGERPRINT})

    return of(text(ANSWER_BYTES - len(of(""))))


def embedding() -> bytes:
    """Returns the body of an answer with one embedding in base64, about 8 KB long."""
    data = [{"object": "embedding", "index": 0, "embedding": VECTOR}]
    return dump({"object": "list", "data": data, "model": _MODEL, "usage": {"prompt_tokens": 42, "total_tokens": 42}})


def unary_text() -> str:
    """Returns the text of the unary answer."""
    content: str = json.loads(unary())["choices"][0]["message"]["content"]
    return content


def events(count: int, *, with_usage: bool) -> list[bytes]:
    """Returns a stream's events: the role, `count` texts, the finish reason, the usage if it is asked for, and `[DONE]`."""
    info = {"id": _ID, "object": "chat.completion.chunk", "created": _CREATED, "model": _MODEL, "system_fingerprint": _FINGERPRINT}
    unused: dict[str, Any] = {"usage": None} if with_usage else {}

    def of(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event(dump({**info, "choices": [choice], **unused}))

    made = [of({"role": "assistant", "content": "", "refusal": None})]
    made += [of({"content": piece}) for piece in pieces(count)]
    made += [of({}, "stop")]
    if with_usage:
        made += [_event(dump({**info, "choices": [], "usage": usage(count)}))]
    return [*made, _event(b"[DONE]")]


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def unchunked(framed: bytes | bytearray) -> bytearray:
    """Returns the body that came as `Transfer-Encoding: chunked`; `framed` is the whole of it, the last chunk included."""
    body = bytearray()
    at = 0
    while True:
        end = framed.index(b"\r\n", at)
        size = int(framed[at:end].partition(b";")[0], 16)
        if size == 0:
            return body
        body += framed[end + 2 : end + 2 + size]
        at = end + 4 + size
