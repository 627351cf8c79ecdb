"""Forms with files: transcriptions, translations, edited and varied images."""

from typing import Any

import openai
import pytest
from twinspan.v1 import audio_pb2, forms_pb2
from twinspan.v1.audio_pb2_grpc import AudioServiceStub

from bridge import errors
from tests.flows.running import Running, configuration, running
from tests.flows.upstream import MODEL, Upstream, text, whole

IMAGES = {"created": 1, "data": [{"b64_json": "AAAA"}]}
NO_FILE = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
LARGE = bytes(range(256)) * 12_000


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK marks translations and variations so
async def test_the_official_sdk_transcribes_and_translates(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole({"text": "Hi.", "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}))
    async with twinspan.openai() as client:
        raw = await client.audio.transcriptions.with_raw_response.create(model=MODEL, file=("a.mp3", LARGE), language="de")
        translated = await client.audio.translations.create(model=MODEL, file=("a.mp3", b"abc"))
    assert raw.parse().text == "Hi."
    assert raw.headers["X-Twinspan-Model"] == MODEL
    assert translated.text == "Hi."
    first, second = upstream.requests
    assert (first.path, second.path) == ("/v1/audio/transcriptions", "/v1/audio/translations")
    assert LARGE in first.raw
    assert b'name="model"\r\n\r\nmodel-1\r\n' in first.raw
    assert b'name="language"\r\n\r\nde\r\n' in first.raw
    assert first.headers["Transfer-Encoding"] == "chunked"
    assert twinspan.complaints() == []


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
async def test_answers_that_are_no_json_come_as_they_are(twinspan: Running, upstream: Upstream, form: str) -> None:
    upstream.plays(text("1\n00:00 --> 00:01\nHi.\n", content_type="text/plain"))
    files = {"file": ("a.wav", b"abc", "audio/wav")}
    data = {"model": MODEL, "response_format": form}
    answer = await twinspan.rest.post("/v1/audio/transcriptions", data=data, files=files)
    assert answer.text == "1\n00:00 --> 00:01\nHi.\n"
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_a_transcription_is_streamed(twinspan: Running, upstream: Upstream) -> None:
    events = 'data: {"type":"transcript.text.delta","delta":"Hi"}\n\ndata: {"type":"transcript.text.done","text":"Hi"}\n\n'
    upstream.plays(text(events, content_type="text/event-stream"))
    async with twinspan.openai() as client:
        stream = await client.audio.transcriptions.create(model=MODEL, file=("a.mp3", b"abc"), stream=True)
        assert [event.type async for event in stream] == ["transcript.text.delta", "transcript.text.done"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK marks translations and variations so
async def test_the_official_sdk_edits_and_varies_images(twinspan: Running, upstream: Upstream) -> None:
    upstream.plays(whole(IMAGES))
    png = ("a.png", b"\x89PNG", "image/png")
    async with twinspan.openai() as client:
        await client.images.edit(model=MODEL, image=[png, ("b.png", b"two", "image/png")], mask=png, prompt="a hat")
        varied = await client.images.create_variation(model=MODEL, image=png)
    assert (varied.data or [])[0].b64_json == "AAAA"
    assert upstream.requests[0].raw.count(b'name="image[]"; filename=') == 2
    assert b'name="mask"; filename="a.png"' in upstream.requests[0].raw
    assert [request.path for request in upstream.requests] == ["/v1/images/edits", "/v1/images/variations"]


@pytest.mark.parametrize("channel", ["network", "inprocess"])
async def test_a_stub_sends_a_form_whose_model_comes_last(twinspan: Running, upstream: Upstream, channel: str) -> None:
    upstream.plays(whole({"text": "Hi."}))
    pieces = [
        forms_pb2.FormPiece(file=forms_pb2.FormFile(name="file", filename="a.mp3")),
        *(forms_pb2.FormPiece(content=LARGE[:1_000_000]) for _ in range(3)),
        forms_pb2.FormPiece(field=forms_pb2.FormField(name="model", value=MODEL)),
    ]
    requests = (audio_pb2.TranscribeRequest(piece=piece) for piece in pieces)
    call = AudioServiceStub(getattr(twinspan, channel)).Transcribe(requests, metadata=twinspan.metadata, timeout=5)
    messages = [message async for message in call]
    assert messages[0].piece.content_type.startswith("application/json")
    assert b"".join(message.piece.content for message in messages) == b'{"text": "Hi."}'
    assert LARGE[:1_000_000] * 3 in upstream.requests[0].raw


@pytest.mark.parametrize(
    ("content_type", "body", "status", "param"),
    [
        ("application/json", b"{}", 400, None),
        ("multipart/form-data", b"", 400, None),
        ("multipart/form-data; boundary=x", b"--x\r\n", 400, None),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n',
            400,
            "file",
        ),
    ],
)
async def test_what_is_no_form_is_refused(
    twinspan: Running, upstream: Upstream, content_type: str, body: bytes, status: int, param: Any
) -> None:
    answer = await twinspan.rest.post("/v1/audio/transcriptions", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert upstream.requests == []
    assert twinspan.complaints() == []


async def test_a_form_over_the_limit_is_refused(upstream: Upstream) -> None:
    sections = configuration(upstream.base_url)
    sections["server"]["max_upload_bytes"] = 1024
    async with running(sections) as twinspan, twinspan.openai() as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.audio.transcriptions.create(model="nobody", file=("a.mp3", b"a" * 4096))
        assert raised.value.status_code in {404, 413}
        with pytest.raises(openai.APIStatusError) as raised:
            await client.audio.transcriptions.create(model=MODEL, file=("a.mp3", b"a" * 4096))
        assert raised.value.status_code == 413
    assert errors.INTERNAL_MESSAGE not in raised.value.message
