"""Makes the ring of keys that requests are checked with, of what the configuration and the store say. Pure.

Of a key or a team that both have, the configuration's holds.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from gateway.access.keys import CLIENT_TOKEN, ConfiguredKeys, KeyRing, Principal, Team
from gateway.keystore.records import Contents, StoredKey


def make_ring(configured: ConfiguredKeys, contents: Contents) -> KeyRing:
    """Returns the ring of all keys."""
    return KeyRing(configured.client_token, configured.api_keys, _stored(configured, contents))


def problems(configured: ConfiguredKeys, contents: Contents) -> tuple[str, ...]:
    """Returns what an operator should know of how the two fit together, a sentence each."""
    names = _names(configured)
    teams = {team.name for team in contents.teams} | configured.teams.keys()
    hidden = [key.name for key in contents.keys if key.name in names]
    alone = [f"{key.name} ({key.team})" for key in contents.keys if key.team and key.team not in teams and key.revoked_at is None]
    found = []
    if hidden:
        found.append(f"The configuration has keys of these names, so the store's do not count: {', '.join(hidden)}.")
    if alone:
        found.append(f"The teams of these keys are gone, so no limits of a team hold for them: {', '.join(alone)}.")
    return tuple(found)


def _names(configured: ConfiguredKeys) -> frozenset[str]:
    return frozenset({CLIENT_TOKEN, *(key.principal.name for key in configured.api_keys)})


def _stored(configured: ConfiguredKeys, contents: Contents) -> Iterator[tuple[bytes, Principal]]:
    """Gives the digests of the store's tokens with whom they belong to, the present token of each key before those it had."""
    hidden = _names(configured)
    teams: Mapping[str, Team] = {team.name: Team(team.name, team.allowance) for team in contents.teams} | dict(configured.teams)
    principals = {key.id: _principal(key, teams) for key in contents.keys if key.name not in hidden}
    for token in sorted(contents.tokens, key=lambda token: token.valid_until is not None):
        principal = principals.get(token.key_id)
        if principal is None:
            continue
        if token.valid_until is not None:
            until = _time(token.valid_until)
            ends = until if principal.expires_at is None else min(until, principal.expires_at)
            principal = dataclasses.replace(principal, expires_at=ends)
        yield bytes.fromhex(token.digest), principal


def _principal(key: StoredKey, teams: Mapping[str, Team]) -> Principal:
    return Principal(
        key.name,
        roles=frozenset(key.roles),
        allowed_agents=frozenset(key.allowed_agents),
        allowed_endpoints=key.allowed_endpoints,
        expires_at=None if key.expires_at is None else _time(key.expires_at),
        enabled=key.enabled and key.revoked_at is None,
        allowance=key.allowance,
        team=teams.get(key.team, Team(key.team)) if key.team else None,
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
