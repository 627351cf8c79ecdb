"""The tables of the key store, and the transactions on them. No I/O: a driver runs them.

Each change begins by raising the revision, whose row is thereby locked: so changes happen one after the other, and what one of them
reads stays true until it ends. Each leaves one entry in the audit log, whose id is that revision. Pure.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import Allowance
from gateway.errors import GatewayError
from gateway.keystore.driver import Rows, Transaction
from gateway.keystore.records import AuditEvent, By, Contents, StoredKey, StoredTeam, StoredToken, changed

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS twinspan_revision (one INTEGER PRIMARY KEY CHECK (one = 1), revision BIGINT NOT NULL);
INSERT INTO twinspan_revision VALUES (1, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS twinspan_teams (
    name TEXT PRIMARY KEY, rpm BIGINT, tpm BIGINT, max_parallel BIGINT, budget_usd DOUBLE PRECISION, budget_period TEXT NOT NULL,
    created_at BIGINT NOT NULL, created_by TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS twinspan_keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, roles TEXT NOT NULL, allowed_agents TEXT NOT NULL,
    allowed_endpoints TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT, enabled BOOLEAN NOT NULL,
    rpm BIGINT, tpm BIGINT, max_parallel BIGINT, budget_usd DOUBLE PRECISION, budget_period TEXT NOT NULL,
    team TEXT NOT NULL, created_by TEXT NOT NULL, revoked_at BIGINT
);
CREATE TABLE IF NOT EXISTS twinspan_tokens (
    digest TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES twinspan_keys (id), valid_until BIGINT
);
CREATE INDEX IF NOT EXISTS twinspan_tokens_by_key ON twinspan_tokens (key_id);
CREATE TABLE IF NOT EXISTS twinspan_audit_events (
    id BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, act TEXT NOT NULL, subject TEXT NOT NULL, fields TEXT NOT NULL
);
"""
"""Makes the tables. `twinspan_audit_events` is the last of them."""

_SHOWN = 64


def revision() -> Transaction[int]:
    """Returns how often the store was changed."""
    rows = yield "SELECT revision FROM twinspan_revision", ()
    return int(rows[0]["revision"]) if rows else 0


@dataclass(frozen=True, slots=True)
class Unread:
    """All that the store says of who may call, in rows. Where there are many, to read them takes a while, and is done apart."""

    revision: int
    keys: Rows
    tokens: Rows
    teams: Rows

    def read(self) -> Contents:
        """Returns what they say."""
        tokens = [StoredToken(row["digest"], row["key_id"], row["valid_until"]) for row in self.tokens]
        return Contents(self.revision, [_key(row) for row in self.keys], tokens, [_team(row) for row in self.teams])


def contents() -> Transaction[Unread]:
    """Returns all that the store says of who may call."""
    number = yield from revision()
    keys = yield "SELECT * FROM twinspan_keys", ()
    tokens = yield "SELECT * FROM twinspan_tokens", ()
    teams = yield "SELECT * FROM twinspan_teams", ()
    return Unread(number, keys, tokens, teams)


def find_key(id_or_name: str) -> Transaction[StoredKey | None]:
    """Returns a key; None if there is none."""
    rows = yield "SELECT * FROM twinspan_keys WHERE id = $1 OR name = $1", (id_or_name,)
    return _key(min(rows, key=lambda row: bool(row["id"] != id_or_name))) if rows else None


def list_keys(before: str, limit: int) -> Transaction[list[StoredKey]]:
    """Returns the newest keys, of those that are older than the one with the id `before`, unless that is empty."""
    rows = yield "SELECT * FROM twinspan_keys WHERE ($1 = '' OR id < $1) ORDER BY id DESC LIMIT $2", (before, limit)
    return [_key(row) for row in rows]


def list_teams() -> Transaction[list[StoredTeam]]:
    """Returns all teams."""
    rows = yield "SELECT * FROM twinspan_teams", ()
    return [_team(row) for row in rows]


def list_events(before: int, limit: int) -> Transaction[list[AuditEvent]]:
    """Returns the latest events, of those before the one with the id `before`."""
    rows = yield "SELECT * FROM twinspan_audit_events WHERE id < $1 ORDER BY id DESC LIMIT $2", (before, limit)
    return [AuditEvent(**{**row, "fields": tuple(json.loads(row["fields"]))}) for row in rows]


def add_key(key: StoredKey, digest: str, by: By, teams: frozenset[str]) -> Transaction[None]:
    """Adds a key with its first token.

    Args:
        key: The key.
        digest: The token's.
        by: Who does it.
        teams: The teams that it may belong to besides those of the store.

    Raises:
        GatewayError: CONFLICT if its name is taken, INVALID_REQUEST if its team is not there.
    """
    number = yield from _begin()
    if (yield from find_key(key.name)) is not None:
        raise taken("key", key.name)
    yield from _check_team(key.team, teams)
    values = (key.id, key.name, *_values(key))
    marks = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    columns = f"id, name, {', '.join(_CHANGING)}"
    yield f"INSERT INTO twinspan_keys ({columns}) VALUES ({marks})", values  # noqa: S608 (columns and marks)
    yield "INSERT INTO twinspan_tokens (digest, key_id) VALUES ($1, $2)", (digest, key.id)
    yield from _note(number, by, "key.create", key.name, changed(StoredKey(key.id, key.name), key))


def change_key(
    id_or_name: str, act: str, change: Callable[[StoredKey], StoredKey], by: By, teams: frozenset[str]
) -> Transaction[StoredKey]:
    """Changes a key and returns it. If the change changes nothing, it is no event.

    Args:
        id_or_name: The key.
        act: What that is in the audit log.
        change: Makes of the key as it is the key as it shall be.
        by: Who does it.
        teams: The teams that it may belong to besides those of the store.

    Raises:
        GatewayError: NOT_FOUND, and what `change` raises.
    """
    number = yield from _begin()
    before = yield from _existing_key(id_or_name)
    after = change(before)
    if after == before:
        return before
    if after.team != before.team:
        yield from _check_team(after.team, teams)
    assignments = ", ".join(f"{name} = ${place}" for place, name in enumerate(_CHANGING, 2))
    yield f"UPDATE twinspan_keys SET {assignments} WHERE id = $1", (after.id, *_values(after))  # noqa: S608 (columns and marks)
    yield from _note(number, by, act, after.name, changed(before, after))
    return after


def rotate_key(
    id_or_name: str, digest: str, overlap_seconds: int, check: Callable[[StoredKey], None], by: By
) -> Transaction[StoredKey]:
    """Gives a key another token, and returns the key.

    Args:
        id_or_name: The key.
        digest: The new token's.
        overlap_seconds: For how long those that it had are still valid.
        check: Raises a `GatewayError` if the key cannot have another.
        by: Who does it.

    Raises:
        GatewayError: NOT_FOUND, and what `check` raises.
    """
    number = yield from _begin()
    key = yield from _existing_key(id_or_name)
    check(key)
    yield "DELETE FROM twinspan_tokens WHERE key_id = $1 AND valid_until <= $2", (key.id, by.at)
    yield (
        "UPDATE twinspan_tokens SET valid_until = $2 WHERE key_id = $1 AND (valid_until IS NULL OR valid_until > $2)",
        (key.id, by.at + overlap_seconds),
    )
    yield "INSERT INTO twinspan_tokens (digest, key_id) VALUES ($1, $2)", (digest, key.id)
    yield from _note(number, by, "key.rotate", key.name, ("token",))
    return key


def add_team(team: StoredTeam, by: By) -> Transaction[None]:
    """Adds a team.

    Raises:
        GatewayError: CONFLICT if its name is taken.
    """
    number = yield from _begin()
    if (yield "SELECT name FROM twinspan_teams WHERE name = $1", (team.name,)):
        raise taken("team", team.name)
    yield (
        "INSERT INTO twinspan_teams VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        (team.name, *_limits(team.allowance), by.at, by.actor),
    )
    yield from _note(number, by, "team.create", team.name, changed(StoredTeam(team.name), team))


def change_team(name: str, change: Callable[[StoredTeam], StoredTeam], by: By) -> Transaction[StoredTeam]:
    """Changes a team and returns it. If the change changes nothing, it is no event.

    Raises:
        GatewayError: NOT_FOUND, and what `change` raises.
    """
    number = yield from _begin()
    before = yield from _existing_team(name)
    after = change(before)
    if after == before:
        return before
    yield (
        "UPDATE twinspan_teams SET rpm = $2, tpm = $3, max_parallel = $4, budget_usd = $5, budget_period = $6 WHERE name = $1",
        (name, *_limits(after.allowance)),
    )
    yield from _note(number, by, "team.update", name, changed(before, after))
    return after


def delete_team(name: str, by: By) -> Transaction[None]:
    """Deletes a team.

    Raises:
        GatewayError: NOT_FOUND; CONFLICT while keys belong to it.
    """
    number = yield from _begin()
    yield from _existing_team(name)
    rows = yield "SELECT name FROM twinspan_keys WHERE team = $1 AND revoked_at IS NULL ORDER BY id LIMIT 1", (name,)
    if rows:
        raise GatewayError(
            ErrorKind.ERROR_KIND_CONFLICT,
            f"Keys belong to the team '{name}', such as '{rows[0]['name']}'. Move or revoke them first.",
        )
    yield "DELETE FROM twinspan_teams WHERE name = $1", (name,)
    yield from _note(number, by, "team.delete", name, ())


def taken(what: str, name: str) -> GatewayError:
    """Returns the error of a name that something else has."""
    return GatewayError(ErrorKind.ERROR_KIND_CONFLICT, f"There is a {what} '{name}' already. Choose another name.", param="name")


def no_such(what: str, name: str) -> GatewayError:
    """Returns the error of a key or team that is not there."""
    return GatewayError(
        ErrorKind.ERROR_KIND_NOT_FOUND, f"There is no {what} '{name[:_SHOWN]}'. GET /v1/admin/{what}s lists those there are."
    )


_CHANGING: Final = (
    *("roles", "allowed_agents", "allowed_endpoints", "created_at", "expires_at", "enabled", "rpm", "tpm", "max_parallel"),
    *("budget_usd", "budget_period", "team", "created_by", "revoked_at"),
)
"""The columns of a key but its id and its name, in the order of `_values`."""


def _begin() -> Transaction[int]:
    yield "UPDATE twinspan_revision SET revision = revision + 1", ()
    return (yield from revision())


def _note(number: int, by: By, act: str, subject: str, fields: tuple[str, ...]) -> Transaction[None]:
    yield (
        "INSERT INTO twinspan_audit_events VALUES ($1, $2, $3, $4, $5, $6)",
        (number, by.at, by.actor, act, subject, json.dumps(fields)),
    )


def _existing_key(id_or_name: str) -> Transaction[StoredKey]:
    key = yield from find_key(id_or_name)
    if key is None:
        raise no_such("key", id_or_name)
    return key


def _existing_team(name: str) -> Transaction[StoredTeam]:
    rows = yield "SELECT * FROM twinspan_teams WHERE name = $1", (name,)
    if not rows:
        raise no_such("team", name)
    return _team(rows[0])


def _check_team(name: str, others: frozenset[str]) -> Transaction[None]:
    if not name or name in others:
        return
    if not (yield "SELECT name FROM twinspan_teams WHERE name = $1", (name,)):
        raise GatewayError(
            ErrorKind.ERROR_KIND_INVALID_REQUEST,
            f"There is no team '{name}'. GET /v1/admin/teams lists those there are.",
            param="team",
        )


def _values(key: StoredKey) -> tuple[Any, ...]:
    lists = (json.dumps(names) for names in (key.roles, key.allowed_agents, key.allowed_endpoints))
    limits = _limits(key.allowance)
    return (*lists, key.created_at, key.expires_at, key.enabled, *limits, key.team, key.created_by, key.revoked_at)


def _limits(allowance: Allowance) -> tuple[Any, ...]:
    return (allowance.rpm, allowance.tpm, allowance.max_parallel, allowance.budget_usd, allowance.budget_period)


def _key(row: Mapping[str, Any]) -> StoredKey:
    return StoredKey(
        row["id"],
        row["name"],
        roles=tuple(json.loads(row["roles"])),
        allowed_agents=tuple(json.loads(row["allowed_agents"])),
        allowed_endpoints=tuple(json.loads(row["allowed_endpoints"])),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        enabled=bool(row["enabled"]),
        allowance=_allowance(row),
        team=row["team"],
        created_by=row["created_by"],
        revoked_at=row["revoked_at"],
    )


def _team(row: Mapping[str, Any]) -> StoredTeam:
    return StoredTeam(row["name"], _allowance(row), row["created_at"], row["created_by"])


def _allowance(row: Mapping[str, Any]) -> Allowance:
    return Allowance(row["rpm"], row["tpm"], row["max_parallel"], row["budget_usd"], row["budget_period"])
