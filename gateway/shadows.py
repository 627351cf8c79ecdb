"""Shadows: copies of requests that go to a second model, whose answers are measured and given to nobody.

They show how a model would do on the traffic of an agent. They run behind the answer, a few at a time, and count under the agent's
name with `:shadow` after it; nobody's budget pays for them. Above is the exchange.
"""

import asyncio
from typing import Final

from gateway.asking import Caller, Operation
from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.pursuit import Means
from gateway.routing.target import Target

_MOST_AT_ONCE: Final = 32


class Shadows:
    """The copies under way; those that are too many are not made."""

    def __init__(self, means: Means) -> None:
        """Makes none yet."""
        self._means = means
        self._running: set[asyncio.Task[None]] = set()

    def cast(self, operation: Operation[Attempt], target: Target, caller: Caller, seconds: float) -> None:
        """Sends a copy of a request to a target; returns at once.

        Args:
            operation: What is asked. It is not asked if asking twice would make two things.
            target: Who is asked.
            caller: Who asked for the original, under whose span the copy stands.
            seconds: How long it may take.
        """
        if not operation.repeatable or len(self._running) >= _MOST_AT_ONCE:
            return
        means = self._means
        span = means.tracing.attempt_span(
            caller.span, provider=target.provider.name, model=target.model, number=1, url=operation.url(target.provider)
        )
        attempt = operation.attempt(target, means.recorder.attempt(*target.key), span)
        task = asyncio.create_task(self._run(attempt, seconds))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Ends all that are under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, attempt: Attempt, seconds: float) -> None:
        fault: BaseException | None = None
        try:
            await attempt.open(self._means.sender, seconds)
            await attempt.drain()
        except GatewayError as error:
            fault = error
        except BaseException as error:
            fault = error
            raise
        finally:
            attempt.settle(fault)
