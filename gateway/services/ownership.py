"""Whose resources a caller sees: its own key's, and an administrator everyone's."""

from gateway.access.keys import ADMIN, Principal
from gateway.rpc.call import RpcCall


def caller_name(call: RpcCall) -> str:
    """Returns the name of the key that calls, which owns what the call makes."""
    return _principal(call).name


def sees_only(call: RpcCall) -> str | None:
    """Returns the name of the key whose resources the caller sees; None for everyone's."""
    principal = _principal(call)
    return None if ADMIN in principal.roles else principal.name


def _principal(call: RpcCall) -> Principal:
    if call.principal is None:
        raise AssertionError(f"{call.method} is public, and nobody owns what it makes.")
    return call.principal
