import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from gateway.telemetry.logs import configure_logging, without_credentials

TOKEN = "ts-0123456789abcdefghij"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def test_a_terminal_gets_text_that_names_the_request() -> None:
    stream = _Terminal()
    configure_logging(stream=stream)

    logging.getLogger("gateway.test").warning("It is %s", "late", extra={"request_id": "r1", "trace_id": "t1", "span_id": ""})

    assert stream.getvalue().partition(" ")[2] == "WARNING gateway.test: It is late  request_id=r1  trace_id=t1\n"


def test_anything_else_gets_one_json_object_a_line() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)

    logging.getLogger("gateway.test").error("It\nbroke", extra={"request_id": "r1", "trace_id": "t1", "span_id": "s1"})
    logging.getLogger("gateway.test").info("Fine")

    first, second = (orjson.loads(line) for line in stream.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "error",
        "logger": "gateway.test",
        "message": "It\nbroke",
        "request_id": "r1",
        "trace_id": "t1",
        "span_id": "s1",
    }
    assert (second["level"], second["message"]) == ("info", "Fine")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_form_can_be_chosen_and_an_exception_is_told_with_its_stack(log_format: str) -> None:
    stream = _Terminal() if log_format == "json" else io.StringIO()
    configure_logging(log_format="json" if log_format == "json" else "text", stream=stream)

    try:
        int(f"Bearer {TOKEN}")
    except ValueError:
        logging.getLogger("gateway.test").exception("It broke", extra={"request_id": "r1"})

    text = stream.getvalue()
    if log_format == "json":
        text = orjson.loads(text)["exception"]
    else:
        assert "It broke  request_id=r1\nTraceback" in text
    assert "Bearer ***" in text
    assert TOKEN not in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    configure_logging("warning", "text", stream)

    logging.getLogger("gateway.test").info("Not this")

    assert stream.getvalue() == ""


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("loud", "text", io.StringIO())


def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(log_format="text", stream=first)
    configure_logging(log_format="text", stream=second)

    logging.getLogger("gateway.test").warning("Once")

    assert (first.getvalue(), second.getvalue().count("Once")) == ("", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "authorization: basic ***"),
        (f"the key {TOKEN} is unknown", "the key *** is unknown"),
        ("sk-proj-abcdefghijklmnopqrstuvwxyz", "***"),
        ("GET /v1beta/models?key=AIzaSyD-abcdefghijklmnop&alt=sse", "GET /v1beta/models?key=***&alt=sse"),
        ('{"api_key": "abcdef123456"}', '{"api_key": "***"}'),
        ("password=hunter22, user=x", "password=***, user=x"),
    ],
)
def test_whatever_looks_like_a_credential_is_struck_out(text: str, expected: str) -> None:
    assert without_credentials(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=1000 input_tokens: 5000",
        "basic authentication is required",
        "skipped_because_of_something_long",
        "KeyError: 'messages'",
        "request req_0123456789abcdef0123 of trace 4bf92f3577b34da6a3ce929d0e0e4736",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert without_credentials(text) == text


def test_what_opentelemetry_repeats_is_written_once() -> None:
    stream = io.StringIO()
    configure_logging(log_format="text", stream=stream)

    for attempt in range(5):
        logging.getLogger("opentelemetry.exporter.test").error("Failed to export, attempt %d", attempt)
        logging.getLogger("gateway.test").error("Said, attempt %d", attempt)

    assert stream.getvalue().count("Failed to export") == 1
    assert stream.getvalue().count("Said") == 5
