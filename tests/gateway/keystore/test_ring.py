from datetime import UTC, datetime
from typing import Any

from gateway.access.keys import Allowance, ApiKey, ConfiguredKeys, Principal, Team, digest_of
from gateway.keystore.records import Contents, StoredKey, StoredTeam, StoredToken
from gateway.keystore.ring import make_ring, problems

OLD, NEW, ADMIN = "ts-the-old-token", "ts-the-new-token", "ts-the-administrator"
UNTIL = 2_000


def contents(*teams: StoredTeam, retired: int | None = None, **fields: Any) -> Contents:
    """Returns a store with one key, `ann`, whose token is NEW; with `retired`, it had OLD, which is valid until then."""
    key = StoredKey("key_1", "ann", **fields)
    tokens = [StoredToken(digest_of(NEW).hex(), key.id)]
    if retired is not None:
        tokens.insert(0, StoredToken(digest_of(OLD).hex(), key.id, retired))
    return Contents(1, [key], tokens, teams)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_stored_key_is_found_by_its_token_with_all_that_is_said_of_it() -> None:
    team = StoredTeam("research", Allowance(rpm=9))
    ring = make_ring(
        ConfiguredKeys(ADMIN),
        contents(team, roles=("admin",), allowed_agents=("a",), allowed_endpoints=("GET /x",), expires_at=UNTIL, team="research"),
    )
    assert ring.identify(NEW) == Principal(
        "ann",
        roles=frozenset({"admin"}),
        allowed_agents=frozenset({"a"}),
        allowed_endpoints=("GET /x",),
        expires_at=at(UNTIL),
        team=Team("research", Allowance(rpm=9)),
    )
    assert ring.identify(OLD) is None
    administrator = ring.identify(ADMIN)
    assert administrator is not None
    assert administrator.name == "client_token"


def test_a_token_that_another_has_replaced_expires_and_the_key_does_not() -> None:
    ring = make_ring(ConfiguredKeys(), contents(retired=UNTIL))
    old, new, named = ring.identify(OLD), ring.identify(NEW), ring.named("ann")
    assert old is not None
    assert old.expires_at == at(UNTIL)
    assert new is named
    assert new is not None
    assert new.expires_at is None


def test_a_token_that_another_has_replaced_outlives_not_its_key() -> None:
    old = make_ring(ConfiguredKeys(), contents(retired=UNTIL, expires_at=UNTIL - 1)).identify(OLD)
    assert old is not None
    assert old.expires_at == at(UNTIL - 1)


def test_neither_a_disabled_nor_a_revoked_key_is_enabled() -> None:
    for fields in ({"enabled": False}, {"revoked_at": 1}):
        found = make_ring(ConfiguredKeys(), contents(**fields)).identify(NEW)
        assert found is not None
        assert not found.enabled


def test_of_a_name_that_both_have_the_configuration_s_key_holds() -> None:
    configured = ConfiguredKeys(ADMIN, (ApiKey(OLD, Principal("ann", roles=frozenset({"read-only"}))),))
    stored = contents(roles=("admin",))
    ring = make_ring(configured, stored)
    assert ring.identify(NEW) is None
    assert ring.named("ann") is ring.identify(OLD)
    [said] = problems(configured, stored)
    assert "ann" in said


def test_of_a_team_that_both_have_the_configuration_s_limits_hold() -> None:
    configured = ConfiguredKeys(ADMIN, teams={"research": Team("research", Allowance(rpm=1))})
    stored = contents(StoredTeam("research", Allowance(rpm=9)), team="research")
    found = make_ring(configured, stored).identify(NEW)
    assert found is not None
    assert found.team == Team("research", Allowance(rpm=1))
    assert problems(configured, stored) == ()


def test_a_key_whose_team_is_gone_stays_and_the_operator_is_told() -> None:
    stored = contents(team="research")
    found = make_ring(ConfiguredKeys(), stored).identify(NEW)
    assert found is not None
    assert found.team == Team("research")
    [said] = problems(ConfiguredKeys(), stored)
    assert "ann (research)" in said
