"""What a request costs over all its attempts, and how that is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.bill import Bill, decimal_text


def test_nothing_is_known_of_a_request_that_was_not_made() -> None:
    assert (Bill().usd, Bill().known_usd) == (None, 0.0)


def test_what_has_no_price_takes_nothing_from_what_is_known_to_be_owed() -> None:
    bill = Bill()
    bill.add(None, consumed=True)
    bill.add(0.5, consumed=True)
    assert (bill.usd, bill.known_usd) == (None, 0.5)


@pytest.mark.parametrize(
    ("attempts", "usd"),
    [
        ([(0.25, True)], 0.25),
        ([(0.25, True), (0.5, True)], 0.75),
        ([(None, False), (0.5, True)], 0.5),
        ([(None, True), (0.5, True)], None),
        ([(0.5, True), (None, True)], None),
        ([(None, False)], None),
        ([(0.0, True)], 0.0),
    ],
    ids=[
        "one",
        "two",
        "one that failed and consumed nothing",
        "one of unknown price that consumed something",
        "an unknown price at the end",
        "one that failed alone",
        "one that is free",
    ],
)
def test_a_bill_is_the_sum_of_its_attempts_as_long_as_every_price_is_known(
    attempts: list[tuple[float | None, bool]], usd: float | None
) -> None:
    bill = Bill()
    for cost, consumed in attempts[:-1]:
        bill.add(cost, consumed=consumed)
    ahead = bill.with_one_more(attempts[-1][0])
    bill.add(attempts[-1][0], consumed=attempts[-1][1])
    assert bill.usd == usd
    assert ahead == usd


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "0"),
        (2.5e-05, "0.000025"),
        (1e-9, "0.000000001"),
        (0.1 + 0.2, "0.3"),
        (12.0, "12"),
        (1e9, "1000000000"),
        (100.5, "100.5"),
    ],
)
def test_an_amount_is_a_plain_decimal(usd: float, text: str) -> None:
    assert decimal_text(usd) == text


@given(st.floats(0, 1e6))
def test_an_amount_is_never_written_with_an_exponent_and_says_what_it_is(usd: float) -> None:
    text = decimal_text(usd)
    assert set(text) <= set("0123456789.")
    assert float(text) == pytest.approx(usd, abs=1e-12)
