"""Sessions: which target a conversation stays with, so that its provider's cache is of use. Pure, and bounded.

A conversation is known by its agent, its instructions and its first message. Where it begins follows from that alone (rendezvous
hashing), so that several processes agree without asking each other; where it went after a failure is remembered here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from gateway.routing.target import Target

_LIMIT: Final = 10_000
"""How many conversations are remembered; those that were idle longest are forgotten first."""


class Sessions:
    """The conversations of all agents."""

    __slots__ = ("_pins",)

    def __init__(self) -> None:
        self._pins: OrderedDict[bytes, tuple[tuple[str, str, str], float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pins)

    def pinned(self, session: bytes, now: float) -> tuple[str, str, str] | None:
        """Returns the key of the target with which a conversation stays; None if it is new, or was idle for too long."""
        key, until = self._pins.get(session, (None, 0.0))
        return key if now < until else None

    def pin(self, session: bytes, target: Target, until: float) -> bool:
        """Notes where a conversation was answered, and tells whether that is another target than before."""
        before = self._pins.pop(session, None)
        self._pins[session] = (target.key, until)
        if len(self._pins) > _LIMIT:
            self._pins.popitem(last=False)
        return before is not None and before[0] != target.key

    def count(self, now: float) -> int:
        """Returns how many conversations stay with a target, those left out that were idle for too long. A thread may ask."""
        return sum(1 for _, until in list(self._pins.values()) if until > now)


def preference(session: bytes, targets: Sequence[Target]) -> list[Target]:
    """Returns the targets in the order in which a conversation prefers them.

    Without one of them the order of the others stays as it is, so that only the conversations of a target that is gone move.
    """
    return sorted(targets, key=lambda target: blake2b("\0".join(target.key).encode(), key=session[:64], digest_size=8).digest())
