"""What a request costs, by what is known of its model."""

import pytest
from twinspan.v1.content_pb2 import Usage

from gateway.routing.facts import Prices


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
