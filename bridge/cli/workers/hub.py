"""What all workers have counted, those that have ended among them. Whichever worker is asked for it asks here.

A scraper must never see a count fall. So what a worker tells a scraper of its own goes through here first, and all that was ever
told here counts on when its worker has ended. What a killed worker had counted since it told last, a second before at most, is
lost.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from bridge.cli.workers.child import Child
from bridge.cli.workers.messages import All, Told
from gateway import app
from gateway.app import Standing

_TELL_SECONDS: Final = 0.5


class Hub:
    """Keeps what was counted.

    Attributes:
        restarts: How often a worker that had died was put in its place again.
    """

    def __init__(self, workers: Callable[[], Sequence[Child]]) -> None:
        """Makes a hub that has heard of nothing.

        Args:
            workers: Returns those that serve, and those that still end.
        """
        self.restarts = 0
        self._workers = workers
        self._ended: Told | None = None
        self._silences = 0
        self._started_at = time.time()

    async def gather(self, asker: Child) -> All:
        """Returns what all have counted. A worker that does not tell in time counts with what it told before.

        Args:
            asker: The worker that asks, which has just told.
        """
        others = [worker for worker in self._workers() if worker is not asker and worker.ready is not None]
        answers = await asyncio.gather(*(worker.tell(_TELL_SECONDS) for worker in others))
        self._silences += answers.count(False)
        workers = self._workers()  # one may have ended meanwhile: then it is among the ended
        told = [self._ended, *(worker.last for worker in workers)]
        serving = sum(worker.ready is not None and not worker.leaving for worker in workers)
        standing = Standing(self._started_at, serving, self.restarts, self._silences)
        return All(0, [one for one in told if one is not None], standing)

    def ended(self, worker: Child) -> None:
        """Keeps what a worker told that has ended. It must not be among the others any more."""
        told = [one for one in (self._ended, worker.last) if one is not None]
        if told:
            core = app.lay_down([one.core for one in told])
            self._ended = Told(0, core, [(*key, count) for key, count in http_counts(told).items()])


def http_counts(told: Sequence[Told]) -> dict[tuple[str, str, int], int]:
    """Returns how many HTTP requests there were, by method, route and status."""
    sums: dict[tuple[str, str, int], int] = {}
    for one in told:
        for method, route, status, count in one.http:
            sums[method, route, status] = sums.get((method, route, status), 0) + count
    return sums
