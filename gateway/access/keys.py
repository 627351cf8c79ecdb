"""Keys: whom a token belongs to. Tokens are held as SHA-256 digests alone."""

import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final

ADMIN = "admin"
USER = "user"
READ_ONLY = "read-only"

CLIENT_TOKEN: Final = "client_token"  # noqa: S105 (a name, not a token)
"""The name under which the administrator's credential acts, which no key can have."""

_GENERATED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much somebody may ask for: a key, or the team that it belongs to.

    Attributes:
        rpm: Most requests a minute; None for no limit.
        tpm: Most tokens a minute; None for no limit.
        max_parallel: Most requests at a time; None for no limit.
        budget_usd: Most that may be spent in a period, in US dollars; None for no limit.
        budget_period: That period, in UTC: `day`, `week` (from Monday), `month`, or `total` for all time.
    """

    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    budget_usd: float | None = None
    budget_period: str = "total"

    @classmethod
    def of(
        cls,
        rpm: int | None,
        tpm: int | None,
        max_parallel: int | None,
        budget_usd: float | None = None,
        budget_period: str = "total",
    ) -> "Allowance":
        """Returns an allowance, which is `UNLIMITED` itself if nothing is limited; of rates and places 0 is no limit."""
        if not (rpm or tpm or max_parallel or budget_usd is not None):
            return UNLIMITED
        return cls(rpm or None, tpm or None, max_parallel or None, budget_usd, budget_period)


UNLIMITED: Final = Allowance()
"""Whoever has no limit of their own."""


@dataclass(frozen=True, slots=True)
class Team:
    """Several keys that share limits.

    Attributes:
        name: The team's name.
        allowance: What its keys may ask for together.
    """

    name: str
    allowance: Allowance = UNLIMITED


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and what their key says of them.

    Attributes:
        name: The key's name.
        roles: Some of `admin`, `user` and `read-only`.
        allowed_agents: The models and agents it may name; empty for all.
        allowed_endpoints: Patterns `METHOD /path` of the routes it may call, in place of what its roles say; empty for those.
        expires_at: When it stops being valid; None for never.
        enabled: Whether it is valid at all.
        cache_salt: What sets its cache entries apart.
        allowance: What it may ask for itself.
        team: The team that it belongs to, whose allowance holds too; None if it belongs to none.
    """

    name: str
    roles: frozenset[str] = frozenset({USER})
    allowed_agents: frozenset[str] = frozenset()
    allowed_endpoints: tuple[str, ...] = ()
    expires_at: datetime | None = None
    enabled: bool = True
    cache_salt: str = ""
    allowance: Allowance = UNLIMITED
    team: Team | None = None

    def allows(self, model: str) -> bool:
        """Tells whether the key may name a model or an agent."""
        return not self.allowed_agents or model in self.allowed_agents or ADMIN in self.roles


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is configured.

    Attributes:
        token: The credential itself.
        principal: Whom it belongs to.
    """

    token: str = field(repr=False)
    principal: Principal


@dataclass(frozen=True, slots=True)
class ConfiguredKeys:
    """What the configuration says of keys.

    Attributes:
        client_token: The administrator's credential, if there is one.
        api_keys: All other keys.
        teams: The teams, by name.
    """

    client_token: str | None = field(default=None, repr=False)
    api_keys: tuple[ApiKey, ...] = ()
    teams: Mapping[str, Team] = field(default_factory=dict)

    def key(self, name: str) -> Principal | None:
        """Returns the key of this name; None if there is none."""
        return next((key.principal for key in self.api_keys if key.principal.name == name), None)


class KeyRing:
    """All credentials that are known."""

    __slots__ = ("_named", "_principals")

    def __init__(
        self, client_token: str | None, api_keys: Iterable[ApiKey] = (), stored: Iterable[tuple[bytes, Principal]] = ()
    ) -> None:
        """Makes a ring; the tokens themselves are not kept.

        Args:
            client_token: The administrator's credential, if there is one.
            api_keys: All others that are configured.
            stored: Those of the key store, by the digests of their tokens. Of one name the first is the key itself.
        """
        self._principals = dict(stored)
        self._named: dict[str, Principal] = {}
        for principal in self._principals.values():
            self._named.setdefault(principal.name, principal)
        configured = {digest_of(key.token): key.principal for key in api_keys}
        if client_token:
            configured[digest_of(client_token)] = Principal(CLIENT_TOKEN, roles=frozenset({ADMIN}))
        self._principals |= configured
        self._named |= {principal.name: principal for principal in configured.values()}

    def identify(self, token: str) -> Principal | None:
        """Returns whom a token belongs to, also if it is disabled or has expired; None if it is unknown.

        The time it takes says nothing about the tokens that are known: what is looked up and compared are digests.
        """
        digest = digest_of(token)
        principal = self._principals.get(digest)
        # A table finds a digest by a part of it and may stop at the first byte that differs, so the whole is compared once more.
        known = digest if principal is not None else _NO_DIGEST
        return principal if hmac.compare_digest(known, digest) else None

    def named(self, name: str) -> Principal | None:
        """Returns the principal of a key by the key's name; None if there is no such key. Only for calls of the gateway's own."""
        return self._named.get(name)


def generate_token() -> str:
    """Returns a new token: `ts-` and 43 characters, of 256 random bits."""
    return "ts-" + secrets.token_urlsafe(_GENERATED_BYTES)


def digest_of(token: str) -> bytes:
    """Returns the SHA-256 digest of a token, by which it is known."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


_NO_DIGEST = bytes(32)
