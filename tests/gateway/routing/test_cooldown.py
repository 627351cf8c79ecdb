"""When a target is passed over, and when it is trusted again."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.cooldown import Cooldown, CooldownSettings

SETTINGS = CooldownSettings(failure_threshold=3, cooldown_seconds=60)


def test_it_begins_with_the_last_failure_of_the_threshold_and_ends_by_itself() -> None:
    cooldown = Cooldown()
    assert [cooldown.failed(now, SETTINGS, "provider_error") for now in (0, 1, 2)] == [False, False, True]
    assert [cooldown.available(now) for now in (2, 61.9, 62)] == [False, False, True]


def test_a_success_forgets_all_failures() -> None:
    cooldown = Cooldown()
    for now in (0, 1):
        cooldown.failed(now, SETTINGS, "provider_error")
    cooldown.succeeded()
    assert not cooldown.failed(2, SETTINGS, "provider_error")
    assert (cooldown.failures, cooldown.available(2)) == (1, True)


def test_after_a_cooldown_one_failure_is_enough_for_the_next() -> None:
    cooldown = Cooldown()
    for now in (0, 1, 2):
        cooldown.failed(now, SETTINGS, "provider_error")
    assert cooldown.failed(100, SETTINGS, "provider_error")
    assert not cooldown.available(159)


def test_a_provider_that_asks_to_wait_is_left_alone_that_long() -> None:
    cooldown = Cooldown()
    assert not cooldown.failed(0, SETTINGS, "rate_limited", retry_after=10)
    assert [cooldown.available(now) for now in (0, 9.9, 10)] == [False, False, True]


@given(st.lists(st.sampled_from(["failed", "succeeded", "waited"]), max_size=40), st.integers(1, 5))
def test_it_is_passed_over_exactly_while_it_should_be(events: list[str], threshold: int) -> None:
    settings = CooldownSettings(failure_threshold=threshold, cooldown_seconds=10)
    cooldown = Cooldown()
    now, in_a_row, until = 0.0, 0, 0.0
    for event in events:
        now += 1
        if event == "waited":
            now += 10
        elif event == "succeeded":
            cooldown.succeeded()
            if in_a_row:
                in_a_row, until = 0, 0.0
        else:
            in_a_row += 1
            assert cooldown.failed(now, settings, "network_error") is (in_a_row >= threshold)
            if in_a_row >= threshold:
                until = now + 10
        assert cooldown.available(now) is (now >= until)
        assert cooldown.failures == in_a_row
