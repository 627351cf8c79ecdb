"""Writes the OpenAPI document: `python -m bridge.openapi IMAGE FILE`, where IMAGE is the protos with their comments."""

import sys
from pathlib import Path
from typing import Any, cast

import orjson
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from prometheus_client import CollectorRegistry

from bridge.app import BridgeSettings, routes
from bridge.openapi.document import document
from bridge.server import ServerSettings
from bridge.telemetry.metrics import HttpMetrics

_PACKAGE = "twinspan.v1"


class _NoChannel:
    """Stands where stubs want a channel: the routes are looked at, and nothing is called."""

    def unary_unary(self, *_: Any, **__: Any) -> None:
        """Returns nothing that could be called."""

    unary_stream = stream_unary = stream_stream = unary_unary


def main(image_path: str, document_path: str) -> None:
    """Writes the document."""
    image = FileDescriptorSet.FromString(Path(image_path).read_bytes())
    pool = descriptor_pool.Default()
    router = routes(cast("Any", _NoChannel()), BridgeSettings(ServerSettings(None, 0), ""), HttpMetrics(CollectorRegistry()))
    messages = {
        message.name: pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}")
        for file in image.file
        if file.package == _PACKAGE
        for message in file.message_type
    }
    written = document(router.endpoints(), image, messages)
    Path(document_path).write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main(*sys.argv[1:])
