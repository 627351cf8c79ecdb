"""Names, and the targets behind them."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.providers.timeouts import Timeouts
from gateway.routing.catalogue import Agent, Catalogue
from gateway.routing.retry import CEILING_SECONDS, backoff_seconds
from gateway.routing.target import Target


def provider(name: str, *models: str) -> Provider:
    return Provider(name, "http://127.0.0.1:1", URL("http://127.0.0.1:1/"), "", {}, models or None, Timeouts(1, 1, 1, 1))


ONE, TWO, OPEN = provider("one", "a", "shared", "smart"), provider("two", "b", "shared", "org/c"), provider("open")


def agent(*targets: Target, **fields: Any) -> Agent:
    return Agent("smart", targets, **fields)


def found(catalogue: Catalogue, name: str) -> list[tuple[str, str]]:
    return [(target.provider.name, target.model) for target in catalogue.route(name).targets]


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("a", [("one", "a")]),
        ("shared", [("one", "shared"), ("two", "shared")]),
        ("two/shared", [("two", "shared")]),
        ("org/c", [("two", "org/c")]),
        ("two/org/c", [("two", "org/c")]),
        ("smart", [("two", "b")]),
        ("one/smart", [("one", "smart")]),
        ("unheard-of", [("open", "unheard-of")]),
        ("open/any/thing", [("open", "any/thing")]),
        ("else/where", [("open", "else/where")]),
    ],
)
def test_a_name_leads_to_its_targets(name: str, targets: list[tuple[str, str]]) -> None:
    assert found(Catalogue([ONE, TWO, OPEN], [agent(Target(TWO, "b", "smart"))]), name) == targets


@pytest.mark.parametrize(
    ("name", "kind"),
    [("", "INVALID_REQUEST"), ("x" * 257, "INVALID_REQUEST"), ("nobody", "MODEL_NOT_FOUND"), ("one/b", "MODEL_NOT_FOUND")],
)
def test_a_name_that_leads_nowhere_is_an_error_of_the_field_model(name: str, kind: str) -> None:
    with pytest.raises(GatewayError) as raised:
        Catalogue([ONE, TWO], []).route(name)
    assert (raised.value.kind, raised.value.param) == (ErrorKind.Value(f"ERROR_KIND_{kind}"), "model")


def test_all_names_are_listed_agents_first_and_each_once() -> None:
    catalogue = Catalogue([ONE, TWO, OPEN], [agent(Target(TWO, "b", "smart"))])
    assert [(listing.id, listing.owned_by) for listing in catalogue.listings()] == [
        ("smart", "twinspan"),
        ("a", "one"),
        ("shared", "one"),
        ("b", "two"),
        ("org/c", "two"),
    ]


@given(st.integers(1, 100), st.none() | st.floats(0, 1000), st.randoms(use_true_random=False))
def test_a_pause_is_what_the_provider_asked_for_or_below_a_ceiling_that_doubles(
    retry: int, asked: float | None, randomness: random.Random
) -> None:
    pause = backoff_seconds(retry, asked, randomness)
    if asked is not None:
        assert pause == asked
    else:
        assert 0 <= pause <= min(CEILING_SECONDS, 0.5 * 2 ** (retry - 1))
