"""Identifiers sort by time."""

from gateway.identifiers import Identifiers


def test_identifiers_rise_even_if_the_clock_does_not() -> None:
    times = iter([5_000_000, 5_000_000, 1_000, 9_000_000])
    made = Identifiers("file-", clock=lambda: next(times))
    ids = [made.new() for _ in range(4)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 4
    assert all(made.has_form(id_) for id_ in ids)
    assert not any(made.has_form(text) for text in ("", "file-", ids[0][:-1], ids[0] + "0", "x" + ids[0], ids[0].upper()))


def test_identifiers_rise_above_those_of_an_earlier_run() -> None:
    last = Identifiers("file-", clock=lambda: 9_000_000_000).new()
    assert Identifiers("file-", clock=lambda: 1_000, last=last).new() > last
