"""The desk at which administrators make and change keys and teams, and read what was done.

Above it is the service. Below it are the transactions, which decide and log as they write, and the live keys, which have each
change hold at once.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import ConfiguredKeys, Principal, digest_of, generate_token
from gateway.errors import GatewayError
from gateway.identifiers import Identifiers
from gateway.keystore import form, transactions
from gateway.keystore.driver import KeyStoreError, Transaction
from gateway.keystore.live import LiveKeys
from gateway.keystore.records import AuditEvent, By, StoredKey, StoredTeam
from gateway.telemetry.recorder import Recorder

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LONGEST_OVERLAP_SECONDS = 30 * 86_400
_RETRY_SECONDS = 1.0
_NEWEST = 2**63 - 1


class KeyDesk:
    """Administers keys and teams.

    Every method raises a `GatewayError`: OVERLOADED or NOT_CONFIGURED if the store cannot be used.
    """

    def __init__(self, live: LiveKeys, recorder: Recorder, *, clock: Callable[[], float] = time.time) -> None:
        """Opens the desk.

        Args:
            live: The keys that hold now.
            recorder: Counts failures of the store.
            clock: Seconds since 1970.
        """
        self._driver = live.driver
        self._live = live
        self._recorder = recorder
        self._clock = clock
        self._ids = Identifiers("key_")

    async def create_key(self, given: Mapping[str, Any], actor: str) -> tuple[StoredKey, str]:
        """Makes a key of what is given, by field, and returns it with its token.

        Raises:
            GatewayError: INVALID_REQUEST; CONFLICT if the name is taken.
        """
        by = self._by(actor)
        key = dataclasses.replace(form.new_key(self._ids.new(), given), created_at=by.at, created_by=actor)
        if key.expires_at is not None and key.expires_at <= by.at:
            raise _invalid("expires_at", "must be in the future, in seconds since 1970")
        if self._ids.has_form(key.name):
            raise _invalid("name", "must not look like the id of a key")
        if self._configured.key(key.name) is not None:
            raise transactions.taken("key", key.name)
        token = generate_token()
        await self._write(transactions.add_key(key, digest_of(token).hex(), by, self._teams))
        return key, token

    async def key(self, id_or_name: str) -> StoredKey:
        """Returns a key, also one of the configuration.

        Raises:
            GatewayError: NOT_FOUND.
        """
        configured = self._configured.key(id_or_name)
        if configured is not None:
            return _shown(configured)
        key = await self._read(transactions.find_key(id_or_name))
        if key is None:
            raise transactions.no_such("key", id_or_name)
        return key

    async def keys(self, after: str, limit: int) -> Sequence[StoredKey]:
        """Returns keys: those of the store, the newest first, then those of the configuration, by name.

        Args:
            after: Where the last page ended: the key's id, or `=` and the name of one of the configuration; empty to begin.
            limit: How many at most.
        """
        found: list[StoredKey] = []
        if not after.startswith("="):
            if after and not self._ids.has_form(after):
                raise _invalid("page_token", "is not one that this service gave out")
            found = await self._read(transactions.list_keys(after, limit))
        others = sorted((_shown(key.principal) for key in self._configured.api_keys), key=lambda key: key.name)
        begin = after.removeprefix("=") if after.startswith("=") else ""
        return [*found, *(key for key in others if key.name > begin)][:limit]

    async def update_key(self, id_or_name: str, given: Mapping[str, Any], actor: str) -> StoredKey:
        """Changes what is given of a key, by field, and returns the key; None stands for what a new key has.

        Raises:
            GatewayError: NOT_FOUND, INVALID_REQUEST; CONFLICT if it cannot be changed.
        """

        def change(key: StoredKey) -> StoredKey:
            self._check_changes(key)
            return form.changed_key(key, given)

        self._check_own("key", id_or_name)
        return await self._write(transactions.change_key(id_or_name, "key.update", change, self._by(actor), self._teams))

    async def rotate_key(self, id_or_name: str, overlap_seconds: int, actor: str) -> tuple[StoredKey, str]:
        """Gives a key a new token, and returns both; the tokens that it had are valid for so long still.

        Raises:
            GatewayError: NOT_FOUND, INVALID_REQUEST; CONFLICT if it cannot be changed.
        """
        if not 0 <= overlap_seconds <= _LONGEST_OVERLAP_SECONDS:
            raise _invalid("overlap_seconds", f"must be from 0 to {_LONGEST_OVERLAP_SECONDS}, which are 30 days")
        self._check_own("key", id_or_name)
        token = generate_token()
        rotation = transactions.rotate_key(
            id_or_name, digest_of(token).hex(), overlap_seconds, self._check_changes, self._by(actor)
        )
        return await self._write(rotation), token

    async def revoke_key(self, id_or_name: str, actor: str) -> StoredKey:
        """Ends a key for good, and returns it. Idempotent.

        Raises:
            GatewayError: NOT_FOUND; CONFLICT if it is the configuration's.
        """
        by = self._by(actor)

        def change(key: StoredKey) -> StoredKey:
            return key if key.revoked_at is not None else dataclasses.replace(key, revoked_at=by.at)

        self._check_own("key", id_or_name)
        return await self._write(transactions.change_key(id_or_name, "key.revoke", change, by, self._teams))

    async def create_team(self, given: Mapping[str, Any], actor: str) -> StoredTeam:
        """Makes a team of what is given, by field, and returns it.

        Raises:
            GatewayError: INVALID_REQUEST; CONFLICT if the name is taken.
        """
        by = self._by(actor)
        team = dataclasses.replace(form.new_team(given), created_at=by.at, created_by=actor)
        if team.name in self._teams:
            raise transactions.taken("team", team.name)
        await self._write(transactions.add_team(team, by))
        return team

    async def teams(self, after: str, limit: int) -> Sequence[StoredTeam]:
        """Returns the teams after the one of this name, those of the configuration among them."""
        stored = {team.name: team for team in await self._read(transactions.list_teams())}
        configured = {name: StoredTeam(name, team.allowance) for name, team in self._configured.teams.items()}
        return [team for name, team in sorted((stored | configured).items()) if name > after][:limit]

    async def update_team(self, name: str, given: Mapping[str, Any], actor: str) -> StoredTeam:
        """Changes what is given of a team, by field, and returns the team; None stands for what a new team has.

        Raises:
            GatewayError: NOT_FOUND, INVALID_REQUEST; CONFLICT if it is the configuration's.
        """
        self._check_own("team", name)
        return await self._write(transactions.change_team(name, lambda team: form.changed_team(team, given), self._by(actor)))

    async def delete_team(self, name: str, actor: str) -> None:
        """Deletes a team.

        Raises:
            GatewayError: NOT_FOUND; CONFLICT if it is the configuration's, or keys belong to it.
        """
        self._check_own("team", name)
        await self._write(transactions.delete_team(name, self._by(actor)))

    async def events(self, before: int | None, limit: int) -> Sequence[AuditEvent]:
        """Returns what was done before the event of this id, the latest first."""
        return await self._read(transactions.list_events(_NEWEST if before is None else before, limit))

    @property
    def _configured(self) -> ConfiguredKeys:
        return self._live.configured

    @property
    def _teams(self) -> frozenset[str]:
        return frozenset(self._configured.teams)

    def _by(self, actor: str) -> By:
        return By(actor, int(self._clock()))

    def _check_own(self, what: str, name: str) -> None:
        """Raises CONFLICT if something is the configuration's."""
        if (self._configured.key(name) is not None) if what == "key" else (name in self._teams):
            raise GatewayError(
                ErrorKind.ERROR_KIND_CONFLICT,
                f"The {what} '{name}' comes from the gateway's configuration. Change it there, and reload the configuration.",
            )

    def _check_changes(self, key: StoredKey) -> None:
        self._check_own("key", key.name)
        if key.revoked_at is not None:
            raise GatewayError(ErrorKind.ERROR_KIND_CONFLICT, f"The key '{key.name}' was revoked, for good. Create another one.")

    async def _read(self, transaction: Transaction[T]) -> T:
        with self._faults():
            return await self._driver.read(transaction)

    async def _write(self, transaction: Transaction[T]) -> T:
        with self._faults():
            result = await self._driver.write(transaction)
        await self._live.refresh()
        return result

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turns faults of the store into errors for administrators."""
        try:
            yield
        except KeyStoreError as error:
            self._recorder.key_store_failed()
            _log.error("Keys cannot be administered. %s", error)
            if error.lasting:
                raise GatewayError(
                    ErrorKind.ERROR_KIND_NOT_CONFIGURED,
                    "The key store cannot be used as it is configured (keys.url). Whoever runs the gateway finds the reason in its "
                    "log.",
                ) from error
            raise GatewayError(
                ErrorKind.ERROR_KIND_OVERLOADED,
                "The key store cannot be reached, so keys cannot be administered; those that were read last go on to hold. Try "
                "again in a moment. GET /readyz tells whether it can be read.",
                retry_after=_RETRY_SECONDS,
            ) from error


def _shown(key: Principal) -> StoredKey:
    """Returns a key of the configuration in the form in which all keys are shown."""
    return StoredKey(
        "",
        key.name,
        roles=tuple(sorted(key.roles)),
        allowed_agents=tuple(sorted(key.allowed_agents)),
        allowed_endpoints=key.allowed_endpoints,
        expires_at=None if key.expires_at is None else int(key.expires_at.timestamp()),
        enabled=key.enabled,
        allowance=key.allowance,
        team=key.team.name if key.team is not None else "",
    )


def _invalid(field: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{field}' {what}.", param=field)
