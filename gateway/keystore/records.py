"""What the key store keeps. Pure."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.access.keys import UNLIMITED, USER, Allowance


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key. All times are in seconds since 1970.

    Attributes:
        id: What the gateway calls it; empty for a key of the configuration, which is shown in the same form.
        name: What administrators call it.
        roles: Some of `admin`, `user` and `read-only`.
        allowed_agents: The models and agents it may name; empty for all.
        allowed_endpoints: The routes it may call, in place of what its roles say; empty for those.
        created_at: When it was made.
        expires_at: When it stops being valid; None for never.
        enabled: Whether it is valid at all.
        allowance: What it may ask for.
        team: The name of the team that it belongs to; empty for none.
        created_by: The name of the key with which it was made.
        revoked_at: When it was revoked; None if it was not.
    """

    id: str
    name: str
    roles: tuple[str, ...] = (USER,)
    allowed_agents: tuple[str, ...] = ()
    allowed_endpoints: tuple[str, ...] = ()
    created_at: int = 0
    expires_at: int | None = None
    enabled: bool = True
    allowance: Allowance = UNLIMITED
    team: str = ""
    created_by: str = ""
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token of a key, of which there is nothing but the digest.

    Attributes:
        digest: Its SHA-256 digest, in hexadecimal.
        key_id: The key's id.
        valid_until: When it stops being valid, since another has taken its place; None for the key's present one.
    """

    digest: str
    key_id: str
    valid_until: int | None = None


@dataclass(frozen=True, slots=True)
class StoredTeam:
    """A team.

    Attributes:
        name: What administrators call it.
        allowance: What its keys may ask for together.
        created_at: When it was made; 0 for a team of the configuration, which is shown in the same form.
        created_by: The name of the key with which it was made; empty for a team of the configuration.
    """

    name: str
    allowance: Allowance = UNLIMITED
    created_at: int = 0
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that an administrator did.

    Attributes:
        id: The revision of the store that it made.
        at: When it was.
        actor: The name of the key with which it was done.
        act: What was done, such as `key.create`.
        subject: The name of the key or team that it was done to.
        fields: The names of what was given or changed.
    """

    id: int
    at: int
    actor: str
    act: str
    subject: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """All that the store says of who may call.

    Attributes:
        revision: Counts the changes of the store.
        keys: The keys, revoked ones among them.
        tokens: Their tokens.
        teams: The teams.
    """

    revision: int = 0
    keys: Sequence[StoredKey] = ()
    tokens: Sequence[StoredToken] = ()
    teams: Sequence[StoredTeam] = ()


@dataclass(frozen=True, slots=True)
class By:
    """Who changes something, and when.

    Attributes:
        actor: The name of the key.
        at: The time.
    """

    actor: str
    at: int


def changed(before: StoredKey | StoredTeam, after: StoredKey | StoredTeam) -> tuple[str, ...]:
    """Returns the names of the fields in which two records differ, as the API calls them."""
    names = [field.name for field in dataclasses.fields(before) if getattr(before, field.name) != getattr(after, field.name)]
    limits = [
        field.name
        for field in dataclasses.fields(Allowance)
        if getattr(before.allowance, field.name) != getattr(after.allowance, field.name)
    ]
    hidden = {"allowance", "created_at", "created_by", "id", "name", "revoked_at"}
    return (*(name for name in names if name not in hidden), *limits)
