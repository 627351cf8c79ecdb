import pytest
from twinspan.v1.content_pb2 import Usage

from gateway.operations.usage_watch import UsageWatch

SAID = b'data: {"type":"transcript.text.done","usage":{"input_tokens":9,"output_tokens":3,"total_tokens":12}}\n\n'
FOUND = Usage(input_tokens=9, output_tokens=3, total_tokens=12)


@pytest.mark.parametrize("size", [1, 7, len(SAID)])
def test_a_usage_is_found_wherever_the_bytes_were_cut(size: int) -> None:
    watch = UsageWatch("text/event-stream; charset=utf-8")
    for start in range(0, len(SAID), size):
        watch.see(SAID[start : start + size])
    watch.see(b"")
    assert watch.usage == FOUND


@pytest.mark.parametrize(
    "unreadable",
    [b'data: {"usage": {"input_tokens": "nine"}}\n\n', b'data: "usage" \n\n', b'data: {"usage": null}\n\n', b"\xff\xfe\n\n"],
)
def test_what_cannot_be_read_is_let_go_by(unreadable: bytes) -> None:
    watch = UsageWatch("text/event-stream")
    watch.see(SAID)
    watch.see(unreadable)
    assert watch.usage == FOUND


def test_an_event_that_is_too_long_ends_the_watch_and_not_the_answer() -> None:
    watch = UsageWatch("text/event-stream")
    watch.see(b"data: " + bytes(17 * 1024 * 1024))
    watch.see(SAID)
    assert watch.usage is None


def test_audio_is_not_looked_at() -> None:
    watch = UsageWatch("audio/mpeg")
    watch.see(SAID)
    watch.see(b"")
    assert watch.usage is None
