"""The process in which the embedding model runs: `python -m gateway.local.embedder`, started by the engine.

It reads its orders from the first line of standard input, loads the model, writes one line of JSON with its address to standard
output, and serves OpenAI's embeddings over HTTP until its standard input ends. That happens when the gateway ends, however it ends,
so that the worker never outlives it. A thread serves each connection, and one at a time computes. Below is `minilm`.
"""

import base64
import contextlib
import hmac
import json
import os
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import orjson

from gateway.local.minilm import MiniLM
from gateway.local.orders import EmbedderOrders

_LONGEST_BODY = 64 * 1024 * 1024
_IDLE_SECONDS: Final = 3600


class _Request(msgspec.Struct):
    model: str
    input: str | list[str | Annotated[int, msgspec.Meta(ge=0)] | list[Annotated[int, msgspec.Meta(ge=0)]]]
    encoding_format: str | None = None
    dimensions: int | None = None


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
        param: The field at fault; None if it is not a field.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


def main() -> None:
    """Runs the worker."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is written there must not be taken for the address
    orders = EmbedderOrders.of_line(sys.stdin.readline())
    try:
        embedder = Embedder(MiniLM(Path(orders.folder)), orders.model)
        server = Server(embedder, orders.api_key, orders.port)
    except Exception as error:  # noqa: BLE001 (the readers of the files have no common error, and it ends here)
        with contextlib.suppress(OSError):  # nobody may be left to read them
            print(error, file=sys.stderr, flush=True)  # noqa: T201 (its last words, which the engine reports)
        os._exit(1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.write(answers, json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}).encode() + b"\n")
    sys.stdin.read()
    os._exit(0)  # nobody waits for what is under way


class Embedder:
    """Answers requests for embeddings, as JSON in OpenAI's form."""

    def __init__(self, model: MiniLM, name: str) -> None:
        """Takes a loaded model and the name that it answers to."""
        self._model = model
        self._name = name
        self._computing = threading.Lock()

    def answer(self, body: bytes) -> bytes:
        """Returns the answer to a request.

        Raises:
            RefusedError: The request is wrong.
        """
        try:
            asked = msgspec.json.decode(body, type=_Request)
        except ValueError as error:
            raise RefusedError(400, f"The body is no request for embeddings: {error}.") from None
        if asked.model != self._name:
            raise RefusedError(404, f"The model '{asked.model}' is not one that embeds; '{self._name}' is.", "model")
        if asked.dimensions not in {None, self._model.dimensions}:
            raise RefusedError(400, f"The vectors of this model have {self._model.dimensions} dimensions.", "dimensions")
        if asked.encoding_format not in {None, "float", "base64"}:
            raise RefusedError(400, "'encoding_format' must be float or base64.", "encoding_format")
        texts = [self._tokens(one) for one in _inputs(asked.input)]
        if not texts:
            raise RefusedError(400, "'input' must hold at least one input.", "input")
        with self._computing:
            vectors = self._model.embed(texts)
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                if asked.encoding_format == "base64"
                else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        read = sum(map(len, texts))
        usage = {"prompt_tokens": read, "total_tokens": read}
        answer = {"object": "list", "data": data, "model": self._name, "usage": usage}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def _tokens(self, one: Any) -> list[int]:
        if isinstance(one, str):
            return self._model.tokens_of(one)
        if not isinstance(one, list) or not one or max(one) >= self._model.vocabulary:
            limit = self._model.vocabulary - 1
            raise RefusedError(400, f"A list of tokens must hold at least one, each a number from 0 to {limit}.", "input")
        return self._model.framed(one)


def _inputs(given: str | Sequence[Any]) -> Sequence[Any]:
    """Returns all inputs: a text is one, and so is a list of tokens."""
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        if not isinstance(given, str) and not all(isinstance(token, int) for token in given):
            raise RefusedError(400, "'input' must be a string, a list of strings, of tokens, or of lists of tokens.", "input")
        return [given]
    return given


class Server(ThreadingHTTPServer):
    """The worker's HTTP server, on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, embedder: Embedder, api_key: str, port: int) -> None:
        """Listens on `port`, 0 for a free one, for those who show the key."""
        self.embedder = embedder
        self.credential = f"Bearer {api_key}".encode()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leaves out the traceback of a connection that broke."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    timeout = _IDLE_SECONDS
    server: Server

    def do_POST(self) -> None:
        try:
            body = self._body()
            self._refuse_strangers()
            self._refuse_other_paths()
            self._send(200, self.server.embedder.answer(body))
        except RefusedError as refused:
            code = "model_not_found" if (refused.status, refused.param) == (404, "model") else None
            error = {"message": str(refused), "type": "invalid_request_error", "param": refused.param, "code": code}
            self._send(refused.status, orjson.dumps({"error": error}))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Writes no log: the gateway has one."""

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST_BODY:
            self.close_connection = True
            raise RefusedError(413 if length.isdecimal() else 411, f"A body must have a length of at most {_LONGEST_BODY} bytes.")
        return self.rfile.read(int(length))

    def _refuse_strangers(self) -> None:
        shown = self.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(shown, self.server.credential):
            raise RefusedError(401, "The key is wrong.")

    def _refuse_other_paths(self) -> None:
        if self.path != "/v1/embeddings":
            raise RefusedError(404, "There is nothing but /v1/embeddings here.")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


if __name__ == "__main__":
    main()
