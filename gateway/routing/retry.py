"""How long to wait before a target is tried again."""

import random

BASE_SECONDS = 0.5
CEILING_SECONDS = 8.0


def backoff_seconds(retry: int, retry_after: float | None, randomness: random.Random) -> float:
    """Returns the pause before a retry: full jitter under a ceiling that doubles, or what the provider asked for.

    Args:
        retry: Which retry it is, from 1.
        retry_after: Seconds that the provider asked to wait, which count as they are.
        randomness: Where the jitter comes from.
    """
    if retry_after is not None:
        return retry_after
    return randomness.uniform(0.0, min(CEILING_SECONDS, BASE_SECONDS * 2 ** min(retry - 1, 16)))
