"""Delegation: work that the gateway does in the background, with the rights of the key that asked for it.

A call made for a key carries that key's name and a secret that only this process knows. Whoever checks the call looks the name up
among the keys that hold then, so a key that was disabled, bound or removed meanwhile has no more rights than it has elsewhere.
"""

import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

_ON_BEHALF_OF = "x-twinspan-on-behalf-of"
_SECRET_BYTES = 32


class Delegation:
    """Makes and recognises calls that this process makes for a key. The secret never leaves the process."""

    __slots__ = ("_credential",)

    def __init__(self) -> None:
        self._credential = f"Bearer {secrets.token_urlsafe(_SECRET_BYTES)}"

    def metadata(self, key: str) -> Sequence[tuple[str, str]]:
        """Returns the metadata of a call that is made for the key of this name."""
        return (("authorization", self._credential), (_ON_BEHALF_OF, key))

    def key_of(self, metadata: Mapping[str, Any]) -> str | None:
        """Returns the name of the key for which a call is made; None if it is not one of this process's own."""
        name, credential = metadata.get(_ON_BEHALF_OF), metadata.get("authorization")
        if not isinstance(name, str) or not isinstance(credential, str):
            return None
        return name if hmac.compare_digest(credential.encode(), self._credential.encode()) else None
