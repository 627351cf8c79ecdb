"""Passing over a target that keeps failing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CooldownSettings:
    """When a target is passed over, and for how long.

    Attributes:
        failure_threshold: Failures in a row that start a cooldown, at least 1.
        cooldown_seconds: How long it lasts.
    """

    failure_threshold: int = 5
    cooldown_seconds: float = 60.0


@dataclass(slots=True)
class Cooldown:
    """The recent past of one agent's target.

    After `failure_threshold` failures in a row the target is passed over for `cooldown_seconds`. Then it may be tried again: a
    success forgets all failures, another failure starts the next cooldown at once.

    Attributes:
        failures: Failures since the last success.
        until: When the target may be tried again, on the caller's clock.
        last_error: The kind of the last failure; empty if there was none.
    """

    failures: int = 0
    until: float = 0.0
    last_error: str = ""

    def available(self, now: float) -> bool:
        """Tells whether the target may be tried."""
        return now >= self.until

    def succeeded(self) -> None:
        """Notes an attempt that went well."""
        if self.failures:
            self.failures = 0
            self.until = 0.0
            self.last_error = ""

    def failed(self, now: float, settings: CooldownSettings, error_kind: str, retry_after: float | None = None) -> bool:
        """Notes an attempt that failed, and tells whether a cooldown began with it.

        Args:
            now: The time, on a clock that never goes back, in seconds.
            settings: What holds for the target's agent.
            error_kind: The kind of the failure.
            retry_after: Seconds that the provider itself asks to wait, which starts a cooldown at the first failure.
        """
        self.failures += 1
        self.last_error = error_kind
        if self.failures >= settings.failure_threshold:
            self.until = now + settings.cooldown_seconds
            return True
        if retry_after:
            self.until = max(self.until, now + retry_after)
        return False
