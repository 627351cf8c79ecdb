"""A method of the core's services, as the bridge calls it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method.

    Attributes:
        name: The full name, such as `/twinspan.v1.ChatService/Stream`.
        invoke: Calls it: a multi-callable of a generated stub.
    """

    name: str
    invoke: Callable[..., Any]

    @classmethod
    def of(cls, stub: object, method: MethodDescriptor) -> "Rpc":
        """Returns the method of a stub that a descriptor names."""
        return cls(f"/{method.containing_service.full_name}/{method.name}", getattr(stub, method.name))
