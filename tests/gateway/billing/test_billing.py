"""What is left at providers, held to how it is configured; the clock is the test's."""

from typing import Any

import pytest
from yarl import URL

from gateway.billing.billing import CREDIT_SECONDS, Billing, Spent
from gateway.billing.reading import Reading
from gateway.billing.terms import Terms
from gateway.config.billing import BillingConfig
from gateway.providers.provider import Provider
from gateway.providers.timeouts import Timeouts
from gateway.routing.target import Target

HEADERS = {"source": "headers", "remaining": "x-left", "reset": "x-reset", "interval_seconds": 60}


def target(asked: str = "m", **billing: Any) -> Target:
    terms = Terms.of(BillingConfig.model_validate(billing))
    url = "http://127.0.0.1/v1"
    provider = Provider("acme", url, URL(f"{url}/chat/completions"), url, {}, None, Timeouts(1, 1, 1, 1), billing=terms)
    return Target.of(provider, asked)


def billing_of(one: Target) -> Billing:
    billing = Billing(lambda: None)
    billing.adopt([one.provider])
    return billing


def answer(billing: Billing, one: Target, now: float, **headers: str) -> None:
    billing.ended(one, {name.replace("_", "-"): value for name, value in headers.items()}, None, now, 1_800_000_000.0)


def test_headers_exhaust_a_provider_until_the_reset() -> None:
    one = target(model="subscription", quota=HEADERS)
    billing = billing_of(one)
    assert billing.spent(one, 0) is None
    answer(billing, one, 0, x_left="3")
    assert billing.spent(one, 0) is None
    answer(billing, one, 0, x_left="0", x_reset="90")
    assert billing.spent(one, 30) == Spent("quota", 60)
    assert billing.spent(one, 90) is None


def test_without_a_reset_it_is_asked_again_after_the_interval() -> None:
    """Nothing is asked of an exhausted provider, so no answer of it would say otherwise."""
    one = target(model="subscription", quota=HEADERS)
    billing = billing_of(one)
    answer(billing, one, 0, x_left="0")
    assert billing.spent(one, 59) == Spent("quota", 1)
    assert billing.spent(one, 60) is None


def test_an_answer_without_the_header_changes_nothing() -> None:
    one = target(model="subscription", quota=HEADERS)
    billing = billing_of(one)
    answer(billing, one, 0, x_left="0")
    answer(billing, one, 1)
    assert billing.spent(one, 1) is not None


def test_what_is_asked_regularly_holds_until_the_answer_after_next() -> None:
    one = target(model="credit", quota={"source": "api", "url": "http://127.0.0.1/", "remaining": "left"})
    billing = billing_of(one)
    billing.asked("acme", Reading(0.0), 0, 300)
    assert billing.spent(one, 0) == Spent("quota", 600)
    billing.asked("acme", Reading(1.0), 300, 300)
    assert billing.spent(one, 300) is None


@pytest.mark.parametrize(("remaining", "exhausted"), [(5.01, False), (5.0, True), (0.0, True)])
def test_it_is_exhausted_at_the_threshold_or_below(remaining: float, exhausted: bool) -> None:
    one = target(model="free", exhausted_below=5, quota=HEADERS)
    billing = billing_of(one)
    answer(billing, one, 0, x_left=str(remaining))
    assert (billing.spent(one, 0) is not None) == exhausted


def test_a_credit_is_spent_by_what_requests_cost_and_no_time_brings_it_back() -> None:
    one = target(model="credit", credit_usd=1.0)
    billing = billing_of(one)
    for cost in (0.4, None, 0.5):
        billing.ended(one, {}, cost, 0, 0)
        assert billing.spent(one, 0) is None
    billing.ended(one, {}, 0.1, 0, 0)
    assert billing.spent(one, 1e9) == Spent("credit", CREDIT_SECONDS)


def test_of_a_mixed_provider_free_models_go_on_when_the_money_is_spent() -> None:
    paid = target("big", model="mixed", credit_usd=1.0, free_models=["tiny", "*:free"])
    billing = billing_of(paid)
    billing.ended(paid, {}, 2.0, 0, 0)
    assert billing.spent(paid, 0) is not None
    for free in ("tiny", "big:free"):
        one = Target.of(paid.provider, free)
        assert billing.spent(one, 0) is None
        assert (one.costs_nothing, one.cost_usd(None)) == (True, 0.0)
    assert not paid.costs_nothing


@pytest.mark.parametrize(("model", "free"), [("free", True), ("subscription", True), ("credit", False)])
def test_what_one_request_more_costs_follows_from_how_it_is_paid(model: str, free: bool) -> None:
    assert target(model=model).costs_nothing is free


def test_what_was_spent_and_said_outlives_the_process_whose_clock_began_elsewhere() -> None:
    one = target(model="credit", credit_usd=1.0, quota=HEADERS)
    first, second = billing_of(one), billing_of(one)
    first.ended(one, {"x-left": "0", "x-reset": "100"}, 0.25, 50, 0)
    second.restore(first.snapshot(1000.0), 2000.0 - 930.0)
    (state,) = second.states(0)
    assert (state.spent_usd, state.remaining, state.exhausted) == (0.25, 0.0, True)
    assert state.remaining_seconds == pytest.approx(150 + 1000 - 1070)


@pytest.mark.parametrize("kept", [None, [], {"acme": 1}, {"acme": {"spent_usd": "1"}}, {"acme": {"spent_usd": -1, "remaining": 0}}])
def test_what_an_earlier_process_wrote_badly_is_left_out(kept: Any) -> None:
    one = target(model="credit", credit_usd=1.0, quota=HEADERS)
    billing = billing_of(one)
    billing.restore(kept, 0)
    (state,) = billing.states(0)
    assert (state.spent_usd, state.remaining) == (0.0, None)


def test_a_reload_keeps_what_was_spent_and_forgets_what_was_said_elsewhere() -> None:
    one = target(model="credit", credit_usd=1.0, quota=HEADERS)
    billing = billing_of(one)
    billing.ended(one, {"x-left": "0"}, 0.25, 0, 0)
    moved = target(model="credit", credit_usd=5.0, quota={**HEADERS, "remaining": "x-other"})
    billing.adopt([moved.provider])
    (state,) = billing.states(0)
    assert (state.spent_usd, state.credit_usd, state.exhausted) == (0.25, 5.0, False)
