"""What is held for a while: by whom, how much, and until when. Constant work for each, however many there are. Pure."""

import heapq


class Leases:
    """Amounts that are held until they are given back, or until their leases end.

    Attributes:
        total: How much is held.
    """

    __slots__ = ("_ends", "_held", "total")

    def __init__(self) -> None:
        self.total = 0
        self._held: dict[str, tuple[int, float]] = {}
        self._ends: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, holder: str, amount: int, until: float) -> None:
        """Holds an amount; one that the holder had before is given back."""
        self.give_back(holder)
        self._held[holder] = (amount, until)
        self.total += amount
        heapq.heappush(self._ends, (until, holder))

    def give_back(self, holder: str) -> None:
        """Gives back what a holder has; nothing happens if that is nothing."""
        if (held := self._held.pop(holder, None)) is not None:
            self.total -= held[0]

    def lapse(self, now: float) -> None:
        """Gives back what is held by leases that have ended."""
        while self._ends and self._ends[0][0] <= now:
            until, holder = heapq.heappop(self._ends)
            if (held := self._held.get(holder)) is not None and held[1] == until:
                self.give_back(holder)
        if len(self._ends) > 2 * len(self._held) + 64:  # most leases are given back before they end
            self._ends = [(until, holder) for holder, (_, until) in self._held.items()]
            heapq.heapify(self._ends)
