"""The rules of `proto/twinspan/v1` that buf does not know."""

from importlib import import_module
from pathlib import Path

from google.protobuf.descriptor import MethodDescriptor
from twinspan.v1 import annotations_pb2


def methods(root: Path) -> list[MethodDescriptor]:
    """Every method of every service, read from the generated descriptors, since those are what both surfaces obey."""
    found = []
    for source in sorted((root / "proto/twinspan/v1").glob("*.proto")):
        file = import_module(f"twinspan.v1.{source.stem}_pb2").DESCRIPTOR
        found += [method for service in file.services_by_name.values() for method in service.methods]
    return found


def test_every_method_states_who_may_call_it(root: Path) -> None:
    found = methods(root)
    assert found
    silent = [
        method.full_name
        for method in found
        if method.GetOptions().Extensions[annotations_pb2.access] == annotations_pb2.ACCESS_UNSPECIFIED
    ]
    assert silent == []
