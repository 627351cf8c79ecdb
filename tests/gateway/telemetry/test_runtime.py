import asyncio
from contextlib import suppress

from gateway.telemetry.recorder import Recorder
from gateway.telemetry.runtime import watch_event_loop


class _JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward, as if something had blocked it."""

    jumped = 0.0

    def time(self) -> float:
        return super().time() + self.jumped


async def _watch_while_the_clock_jumps(recorder: Recorder, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _JumpingLoop)
    watching = loop.create_task(watch_event_loop(recorder, interval_seconds=10))
    await asyncio.sleep(0)
    loop.jumped = seconds
    for _ in range(5):
        await asyncio.sleep(0)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


def test_a_loop_that_was_blocked_shows_as_lag() -> None:
    recorder = Recorder()

    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(_watch_while_the_clock_jumps(recorder, 15))

    assert recorder.loop_lag.count == 1
    assert 5 <= recorder.loop_lag.sum < 6


def test_before_the_interval_is_over_nothing_is_counted() -> None:
    recorder = Recorder()

    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(_watch_while_the_clock_jumps(recorder, 5))

    assert recorder.loop_lag.count == 0
