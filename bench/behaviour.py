"""The names of the mock's models: each says how its answer comes.

`bench-unary` answers in one piece, and `bench-embedding` with a vector. `bench-stream-CHUNKS` streams without a pause,
`bench-stream-CHUNKS-0-PER_TURN` writes PER_TURN chunks in a turn of the event loop (0: all in one), and
`bench-stream-CHUNKS-PAUSE` sends a chunk every PAUSE milliseconds. A name travels in the request's body through any gateway,
whatever that does with headers.
"""

import dataclasses
import re

PREFIX = b"bench-"
UNARY = "bench-unary"
EMBEDDING = "bench-embedding"
_NAME = re.compile(r"bench-stream-(\d+)(?:-(\d+)(?:-(\d+))?)?")


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How a stream is sent."""

    chunks: int
    """Chunks with text; the role, the finish reason and `[DONE]` come on top."""
    pause_milliseconds: int = 0
    """Between two chunks."""
    per_turn: int = 0
    """Chunks written in one turn of the event loop, where there is no pause; 0 is all."""

    @property
    def model(self) -> str:
        """The model's name for this behaviour."""
        return f"bench-stream-{self.chunks}-{self.pause_milliseconds}-{self.per_turn}"


def behaviour_of(name: str) -> Behaviour | None:
    """Returns how the model called `name` streams, or None if it does not."""
    match = _NAME.fullmatch(name)
    return None if match is None else Behaviour(*(int(group) for group in match.groups(default="0")))
