"""What providers say is left, in the forms in which they say it."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.reading import Reading, UnreadableError, read
from gateway.config.billing import QuotaConfig

NOW = 1_800_000_000.0
URL = "https://acme.example/balance"


def quota(**fields: Any) -> QuotaConfig:
    return QuotaConfig.model_validate({"source": "api", "url": URL, **fields})


DEEPSEEK = b'{"is_available": true, "balance_infos": [{"currency": "USD", "total_balance": "110.00"}]}'
OPENROUTER = b'{"data": {"limit": 20, "limit_remaining": 12.5, "is_free_tier": false}}'
UNLIMITED = b'{"data": {"limit": null, "limit_remaining": null}}'
PAGE = b"<p>Credits left: <b>42.5</b> of <i>100</i>, more in 1h30m</p>"
HEADERS = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "6m0s"}


@pytest.mark.parametrize(
    ("quota", "headers", "body", "reading"),
    [
        (quota(remaining="balance_infos.0.total_balance"), {}, DEEPSEEK, Reading(110.0)),
        (quota(remaining="data.limit_remaining", limit="data.limit"), {}, OPENROUTER, Reading(12.5, 20.0)),
        (quota(remaining="data.limit_remaining", limit="data.limit"), {}, UNLIMITED, Reading(math.inf)),
        (
            quota(extraction="regex", remaining="<b>([0-9.]+)", limit="<i>([0-9.]+)", reset="more in ([0-9hms]+)"),
            {},
            PAGE,
            Reading(42.5, 100.0, 5400.0),
        ),
        (
            QuotaConfig(
                source="headers",
                remaining="x-ratelimit-remaining-requests",
                limit="x-ratelimit-limit-requests",
                reset="x-ratelimit-reset-requests",
            ),
            HEADERS,
            b"",
            Reading(0.0, 60.0, 360.0),
        ),
        (quota(extraction="header", remaining="x-left", reset="x-reset"), {"x-left": "7"}, b"", Reading(7.0)),
    ],
    ids=["deepseek", "openrouter", "without a limit", "a page", "openai's headers", "headers of an address"],
)
def test_each_form_is_read(quota: QuotaConfig, headers: dict[str, str], body: bytes, reading: Reading) -> None:
    assert read(quota, headers, body, NOW) == reading


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (30, 30.0),
        ("2.5", 2.5),
        ("6m0s", 360.0),
        ("1d2h", 93_600.0),
        ("20ms", 0.02),
        ("1m20ms", 60.02),
        (NOW + 60, 60.0),
        ((NOW + 60) * 1000, 60.0),
        (NOW - 60, 0.0),
        ("2027-01-15T08:01:00Z", 60.0),
        ("2027-01-15T08:01:00", 60.0),
        ("soon", None),
        ("", None),
        (None, None),
        ([], None),
        (True, None),
    ],
)
def test_a_reset_is_read_in_any_of_its_forms(said: Any, seconds: float | None) -> None:
    body = orjson.dumps({"left": 1, "reset": said})
    assert read(quota(remaining="left", reset="reset"), {}, body, NOW).reset_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "its answer is not JSON"),
        (b"{}", "there is no 'a.b' in its answer"),
        (b'{"a": [1]}', "there is no 'a.b' in its answer"),
        (b'{"a": {"b": "much"}}', "'a.b' in its answer is not a number"),
        (b'{"a": {"b": true}}', "'a.b' in its answer is not a number"),
        (b'{"a": {"b": NaN}}', "'a.b' in its answer is not a number"),
    ],
)
def test_an_answer_that_does_not_say_it_is_told_apart(body: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message.replace(".", r"\.")):
        read(quota(remaining="a.b"), {}, body, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", "1"]), inner, max_size=3),
    max_leaves=10,
)


@given(JSON, st.lists(st.sampled_from(["a", "b", "0", "1", ""]), min_size=1, max_size=4).map(".".join).filter(bool))
def test_whatever_an_answer_holds_it_is_a_reading_or_none(tree: Any, path: str) -> None:
    try:
        reading = read(quota(remaining=path, limit=path, reset=path), {}, json.dumps(tree).encode(), NOW)
    except UnreadableError:
        return
    assert not math.isnan(reading.remaining)
    assert reading.reset_seconds is None or reading.reset_seconds >= 0
