"""What a request costs, by what is known of its model."""

import pytest
from twinspan.v1.content_pb2 import Usage

from gateway.routing.facts import KnownModels, ModelFacts, Prices


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(), 0.0),
        (Usage(input_tokens=1_000_000, output_tokens=100_000), 3.0 + 1.5),
        (Usage(input_tokens=1_000_000, cached_input_tokens=400_000), 0.6 * 3.0 + 0.4 * 0.3),
        (Usage(input_tokens=1_000_000, cache_creation_input_tokens=1_000_000), 3.75),
        (Usage(output_tokens=1_000_000, reasoning_tokens=900_000), 15.0),
    ],
)
def test_cached_tokens_are_a_part_of_those_read_and_have_a_price_of_their_own(usage: Usage, usd: float) -> None:
    assert Prices(input=3.0, output=15.0, cached_input=0.3, cache_write=3.75).cost(usage) == pytest.approx(usd)


def test_cached_tokens_cost_what_others_do_unless_they_have_a_price() -> None:
    usage = Usage(input_tokens=1_000_000, cached_input_tokens=500_000, cache_creation_input_tokens=500_000)
    assert Prices(input=2.0, output=0.0).cost(usage) == pytest.approx(2.0)


def test_a_provider_that_counts_cached_tokens_apart_gives_no_negative_price() -> None:
    assert Prices(input=1.0, output=1.0, cached_input=0.0).cost(Usage(input_tokens=5, cached_input_tokens=50)) == 0.0


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(input_tokens=200_000, output_tokens=1_000_000), 0.2 * 3.0 + 15.0),
        (Usage(input_tokens=200_001, output_tokens=1_000_000), 0.200_001 * 6.0 + 22.5),
        (Usage(input_tokens=400_000, cached_input_tokens=400_000), 0.4 * 0.6),
        (Usage(input_tokens=1_000_001), 1.000_001 * 9.0),
    ],
)
def test_a_larger_request_costs_its_own_prices_for_all_its_tokens(usage: Usage, usd: float) -> None:
    tiers = ((200_000, Prices(6.0, 22.5, cached_input=0.6)), (1_000_000, Prices(9.0, 30.0)))
    assert Prices(3.0, 15.0, cached_input=0.3, tiers=tiers).cost(usage) == pytest.approx(usd)


def test_facts_stand_over_others_field_by_field() -> None:
    own = ModelFacts(context_window=5, capabilities=frozenset(), chats=False)
    other = ModelFacts(6, 7, frozenset({"vision"}), Prices(1.0, 2.0), 8, chats=True)
    assert own.over(other) == ModelFacts(5, 7, frozenset(), Prices(1.0, 2.0), 8, chats=False)
    assert other.over(own) == other


def test_what_is_looked_up_is_remembered_and_bounded() -> None:
    asked: list[str] = []

    def look_up(model: str) -> ModelFacts:
        asked.append(model)
        return ModelFacts(context_window=len(model))

    known = KnownModels({"a": ModelFacts(context_window=9)}, look_up)
    assert [known.of(model).context_window for model in ("a", "bb", "bb")] == [9, 2, 2]
    assert asked == ["bb"]
    for number in range(3000):
        known.of(f"invented-{number}")
    assert len(known._remembered) <= 1024
