"""What the gateway tells the workers of the embedded models, as one line of JSON on the worker's standard input.

It goes that way, and not as arguments or in the environment, because it holds a key, and those can be read by others.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self, cast


class Line:
    """Orders as the one line that a worker reads. Those that inherit are dataclasses."""

    __slots__ = ()

    def to_line(self) -> bytes:
        """Returns the orders as the worker reads them."""
        return json.dumps(asdict(cast("Any", self))).encode() + b"\n"

    @classmethod
    def of_line(cls, line: str) -> Self:
        """Returns the orders of a line."""
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class EmbedderOrders(Line):
    """What the worker of the embedding model is to do.

    Attributes:
        folder: Where the model's files are, as an absolute path.
        model: The name that it answers to.
        api_key: What its callers must show.
        port: Where to listen on 127.0.0.1; 0 for a free port.
    """

    folder: str
    model: str
    api_key: str = field(repr=False)
    port: int = 0


@dataclass(frozen=True, slots=True)
class Orders(Line):
    """What the worker of the chat model is to do.

    Attributes:
        weights: The model's file, as an absolute path.
        model: The name that it answers to.
        slots: How many requests it works on at a time.
        context_tokens: The most tokens of one request with its answer. Each slot has that much for itself.
        threads: How many threads compute.
        api_key: What its callers must show.
        port: Where to listen on 127.0.0.1; 0 for a free port.
    """

    weights: str
    model: str
    slots: int
    context_tokens: int
    threads: int
    api_key: str = field(repr=False)
    port: int = 0
