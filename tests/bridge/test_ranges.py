"""What a `Range` header asks for."""

import pytest

from bridge.ranges import Range, UnsatisfiableError, wanted


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", Range(0, 0)),
        ("bytes=2-5", Range(2, 5)),
        ("bytes=2-", Range(2, 9)),
        ("bytes=2-99", Range(2, 9)),
        ("bytes=-3", Range(7, 9)),
        ("bytes=-99", Range(0, 9)),
        ("", None),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0661-", None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_a_range_is_a_part_or_means_the_whole(header: str, expected: Range | None) -> None:
    assert wanted(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        wanted(header, 10)


def test_no_range_fits_an_empty_body() -> None:
    for header in ("bytes=0-", "bytes=-1"):
        with pytest.raises(UnsatisfiableError):
            wanted(header, 0)
