from bench.phase import Spread, spread


def test_a_spread_tells_the_middle_and_the_tail_in_milliseconds() -> None:
    seconds = [number / 1000 for number in range(1, 101)]

    assert spread(seconds[::-1]) == Spread(p50=51.0, p90=91.0, p99=100.0, highest=100.0)


def test_a_single_time_is_all_of_its_spread() -> None:
    assert spread([0.25]) == Spread(250.0, 250.0, 250.0, 250.0)


def test_no_times_have_no_spread() -> None:
    assert spread([]) is None
