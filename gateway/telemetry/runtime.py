"""How late the event loop is, sampled by one task.

`gateway.app` owns the task; the lag goes to `gateway.telemetry.recorder`. What made the loop late is for a profiler to say.
"""

import asyncio

from gateway.telemetry.recorder import Recorder


async def watch_event_loop(recorder: Recorder, interval_seconds: float = 0.5) -> None:
    """Sleeps again and again, and counts by how much each sleep was too long. It ends by cancellation alone.

    Args:
        recorder: Counts the lag.
        interval_seconds: The time between two samples; each costs about 20 µs.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_seconds
        await asyncio.sleep(interval_seconds)
        # A loop rounds its timers and may wake a little too early.
        recorder.loop_was_late(max(0.0, loop.time() - due))
