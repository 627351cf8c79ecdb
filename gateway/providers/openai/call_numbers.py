"""Numbers the tool calls of a streamed answer, so that no two of them run together.

Pieces of one call share a number. Some providers leave it out, and some give the number 0 to every call; what tells calls apart
then is that a new one brings an id and a name. Numbers that are in order are left as they came.
"""


class CallNumbers:
    """The calls of one choice."""

    __slots__ = ("_ids", "_last", "_moved")

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._moved: dict[int, int] = {}
        self._last = 0

    def number(self, given: int | None, identifier: str, name: str) -> int:
        """Returns the number of the call that a piece belongs to.

        Args:
            given: The number that the provider gave it, if it gave one.
            identifier: The piece's id; empty if it has none. Some providers make up another one for every piece.
            name: The piece's function name; empty if it has none. Only the first piece of a call has one.
        """
        number = self._guessed(identifier, name) if given is None else self._checked(given, identifier, name)
        self._last = number
        if identifier or number not in self._ids:
            self._ids[number] = identifier
        return number

    def _guessed(self, identifier: str, name: str) -> int:
        if identifier:
            for number, known in self._ids.items():
                if known == identifier:
                    return number
        return self._next() if identifier or name else self._last

    def _checked(self, given: int, identifier: str, name: str) -> int:
        number = self._moved.get(given, given)
        known = self._ids.get(number)
        if known and identifier and name and identifier != known:
            number = self._moved[given] = self._next()
        return number

    def _next(self) -> int:
        return max(self._ids, default=-1) + 1
