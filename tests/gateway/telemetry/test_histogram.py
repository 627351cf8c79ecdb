from gateway.telemetry.histogram import Exemplar, Histogram, merged


def test_a_value_that_equals_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)

    assert (histogram.counts, histogram.sum, histogram.count) == ([2, 2, 1], 7.5, 5)


def test_a_bucket_keeps_its_latest_exemplar() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(0.25, "a" * 32)
    histogram.observe(0.5, "b" * 32)
    histogram.observe(0.75)

    (exemplar,) = histogram.exemplars.values()
    assert exemplar == Exemplar("b" * 32, 0.5, exemplar.timestamp)


def test_merging_adds_everything_up() -> None:
    first, second = Histogram((1.0,)), Histogram((1.0,))
    first.observe(0.5)
    second.observe(2.0, "a" * 32)

    total = merged([first, second], (1.0,))

    assert (total.counts, total.sum, set(total.exemplars)) == ([1, 1], 2.5, {1})
    assert merged([], (1.0,)).counts == [0, 0]
