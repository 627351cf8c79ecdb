"""Keys and teams that administrators make while the gateway runs, on both surfaces, in one gateway and in two over one store."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from twinspan.v1 import keys_pb2
from twinspan.v1.keys_pb2_grpc import KeysServiceStub

from bridge import errors
from bridge.transcoding import as_json
from tests.flows.running import TOKEN, Running, configuration, running, running_over
from tests.flows.test_batches import begin, ended, line, written
from tests.flows.test_parity import HELLO
from tests.flows.upstream import Upstream, says
from tests.postgresql import PostgresqlServer

CONFIGURED = "ts-a-key-of-the-configuration"
KEYS = [{"name": "configured", "token": CONFIGURED, "team": "core", "rpm": 3}]
TEAMS = {"core": {"rpm": 100, "budget_usd": 5, "budget_period": "month"}}
DATABASES = count()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresqlServer]:
    with PostgresqlServer() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    """Returns the section `keys` of a configuration with an empty store."""
    if request.param == "sqlite":
        return {"url": "sqlite://"}
    server: PostgresqlServer = request.getfixturevalue("server")
    name = f"flows{next(DATABASES)}"
    server.sql(f"CREATE DATABASE {name}")
    return {"url": server.url(name)}


@pytest.fixture
async def governed(upstream: Upstream) -> AsyncIterator[Running]:
    upstream.plays(says("Hello."))
    async with running_over(upstream, api_keys=KEYS, teams=TEAMS) as started:
        yield started


@asynccontextmanager
async def gateways(upstream: Upstream, number: int, **sections: Any) -> AsyncIterator[list[Running]]:
    """Runs several gateways of one configuration."""
    async with AsyncExitStack() as stack:
        sections = configuration(upstream.base_url, **sections)
        yield [await stack.enter_async_context(running(sections)) for _ in range(number)]


async def becomes(ask: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Asks until the answer is the wanted one, 5 seconds long at most."""
    answer = None
    for _ in range(250):
        if (answer := await ask()) == wanted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(answer)


async def create(twinspan: Running, name: str = "ann", **fields: Any) -> str:
    """Makes a key and returns its token."""
    answer = await twinspan.rest.post("/v1/admin/keys", json={"name": name, **fields})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["token"]
    return token


async def status(twinspan: Running, token: str, path: str = "/v1/models") -> int:
    return (await twinspan.rest.get(path, headers={"Authorization": f"Bearer {token}"})).status_code


async def rpc_status(twinspan: Running, token: str) -> str:
    """Returns the code of an RPC over the network with a token."""
    try:
        await KeysServiceStub(twinspan.network).ListTeams(
            keys_pb2.ListTeamsRequest(), metadata=[("authorization", f"Bearer {token}")], timeout=5
        )
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


# One gateway, both surfaces


def plain(answer: Any) -> Any:
    """Returns an answer without what differs from key to key: that it is there is all that is kept of it."""
    if isinstance(answer, list):
        return [plain(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    own = {"id", "created_at", "revoked_at", "token", "next_page_token"}
    return {name: bool(value) if name in own else plain(value) for name, value in answer.items()}


CALLS: list[tuple[str, str, Any, str, Any]] = [
    (
        "POST",
        "/v1/admin/keys",
        {"name": "NAME", "roles": ["read-only"], "rpm": 5, "budget_usd": 0.5, "budget_period": "week", "team": "core"},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="NAME", roles=["read-only"], rpm=5, budget_usd=0.5, budget_period="week", team="core"),
    ),
    ("GET", "/v1/admin/keys/NAME", None, "GetKey", keys_pb2.GetKeyRequest(id="NAME")),
    (
        "PATCH",
        "/v1/admin/keys/NAME",
        {"rpm": None, "tpm": 7, "allowed_agents": ["smart"], "expires_at": 4_000_000_000, "enabled": False, "team": ""},
        "UpdateKey",
        keys_pb2.UpdateKeyRequest(
            id="NAME",
            tpm=7,
            allowed_agents=["smart"],
            expires_at=4_000_000_000,
            enabled=False,
            update_mask=FieldMask(paths=["rpm", "tpm", "allowed_agents", "expires_at", "enabled", "team"]),
        ),
    ),
    ("PATCH", "/v1/admin/keys/NAME", {"tpm": 8}, "UpdateKey", keys_pb2.UpdateKeyRequest(id="NAME", tpm=8)),
    ("PATCH", "/v1/admin/keys/NAME", {}, "UpdateKey", keys_pb2.UpdateKeyRequest(id="NAME")),
    (
        "POST",
        "/v1/admin/keys/NAME/rotate",
        {"overlap_seconds": 60},
        "RotateKey",
        keys_pb2.RotateKeyRequest(id="NAME", overlap_seconds=60),
    ),
    ("POST", "/v1/admin/keys/NAME/rotate", None, "RotateKey", keys_pb2.RotateKeyRequest(id="NAME")),
    ("POST", "/v1/admin/keys/NAME/revoke", None, "RevokeKey", keys_pb2.RevokeKeyRequest(id="NAME")),
    ("POST", "/v1/admin/keys/NAME/revoke", None, "RevokeKey", keys_pb2.RevokeKeyRequest(id="NAME")),
    ("GET", "/v1/admin/keys?page_size=1", None, "ListKeys", keys_pb2.ListKeysRequest(page_size=1)),
    ("POST", "/v1/admin/teams", {"name": "tNAME", "tpm": 9}, "CreateTeam", keys_pb2.CreateTeamRequest(name="tNAME", tpm=9)),
    (
        "PATCH",
        "/v1/admin/teams/tNAME",
        {"tpm": None, "rpm": 1},
        "UpdateTeam",
        keys_pb2.UpdateTeamRequest(name="tNAME", rpm=1, update_mask=FieldMask(paths=["tpm", "rpm"])),
    ),
    ("GET", "/v1/admin/teams", None, "ListTeams", keys_pb2.ListTeamsRequest()),
    ("DELETE", "/v1/admin/teams/tNAME", None, "DeleteTeam", keys_pb2.DeleteTeamRequest(name="tNAME")),
]
REFUSALS: list[tuple[str, str, Any, str, Any, str, str | None]] = [
    # What is asked over REST and over gRPC, the kind of the error, and its field.
    (
        "POST",
        "/v1/admin/keys",
        {"name": "configured"},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="configured"),
        "conflict",
        "name",
    ),
    (
        "PATCH",
        "/v1/admin/keys/configured",
        {"rpm": 1},
        "UpdateKey",
        keys_pb2.UpdateKeyRequest(id="configured", rpm=1),
        "conflict",
        None,
    ),
    (
        "POST",
        "/v1/admin/keys/configured/rotate",
        {},
        "RotateKey",
        keys_pb2.RotateKeyRequest(id="configured"),
        "conflict",
        None,
    ),
    (
        "POST",
        "/v1/admin/keys/configured/revoke",
        None,
        "RevokeKey",
        keys_pb2.RevokeKeyRequest(id="configured"),
        "conflict",
        None,
    ),
    ("POST", "/v1/admin/teams", {"name": "core"}, "CreateTeam", keys_pb2.CreateTeamRequest(name="core"), "conflict", "name"),
    ("DELETE", "/v1/admin/teams/core", None, "DeleteTeam", keys_pb2.DeleteTeamRequest(name="core"), "conflict", None),
    (
        "PATCH",
        "/v1/admin/teams/core",
        {"rpm": 1},
        "UpdateTeam",
        keys_pb2.UpdateTeamRequest(name="core", rpm=1),
        "conflict",
        None,
    ),
    ("GET", "/v1/admin/keys/nobody", None, "GetKey", keys_pb2.GetKeyRequest(id="nobody"), "not_found", None),
    ("GET", "/v1/admin/keys/client_token", None, "GetKey", keys_pb2.GetKeyRequest(id="client_token"), "not_found", None),
    ("POST", "/v1/admin/keys/nobody/revoke", None, "RevokeKey", keys_pb2.RevokeKeyRequest(id="nobody"), "not_found", None),
    ("DELETE", "/v1/admin/teams/nobody", None, "DeleteTeam", keys_pb2.DeleteTeamRequest(name="nobody"), "not_found", None),
    ("POST", "/v1/admin/keys", {}, "CreateKey", keys_pb2.CreateKeyRequest(), "invalid_request", "name"),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "client_token"},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="client_token"),
        "invalid_request",
        "name",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "key_" + "0" * 32},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="key_" + "0" * 32),
        "invalid_request",
        "name",
    ),
    ("POST", "/v1/admin/keys", {"name": "a b"}, "CreateKey", keys_pb2.CreateKeyRequest(name="a b"), "invalid_request", "name"),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "roles": ["user", "king"]},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", roles=["user", "king"]),
        "invalid_request",
        "roles[1]",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "allowed_endpoints": ["/v1/models"]},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", allowed_endpoints=["/v1/models"]),
        "invalid_request",
        "allowed_endpoints[0]",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "rpm": -1},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", rpm=-1),
        "invalid_request",
        "rpm",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "budget_usd": -0.1},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", budget_usd=-0.1),
        "invalid_request",
        "budget_usd",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "budget_period": "year"},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", budget_period="year"),
        "invalid_request",
        "budget_period",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "expires_at": 1_000},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", expires_at=1_000),
        "invalid_request",
        "expires_at",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "expires_at": 2**63 - 1},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", expires_at=2**63 - 1),
        "invalid_request",
        "expires_at",
    ),
    (
        "POST",
        "/v1/admin/keys",
        {"name": "a", "team": "nobody"},
        "CreateKey",
        keys_pb2.CreateKeyRequest(name="a", team="nobody"),
        "invalid_request",
        "team",
    ),
    (
        "PATCH",
        "/v1/admin/keys/NAME",
        {"roles": []},
        "UpdateKey",
        keys_pb2.UpdateKeyRequest(id="NAME", update_mask=FieldMask(paths=["roles"])),
        "invalid_request",
        "roles",
    ),
    (
        "POST",
        "/v1/admin/keys/NAME/rotate",
        {"overlap_seconds": 2_592_001},
        "RotateKey",
        keys_pb2.RotateKeyRequest(id="NAME", overlap_seconds=2_592_001),
        "invalid_request",
        "overlap_seconds",
    ),
    (
        "POST",
        "/v1/admin/keys/NAME/rotate",
        {"overlap_seconds": -1},
        "RotateKey",
        keys_pb2.RotateKeyRequest(id="NAME", overlap_seconds=-1),
        "invalid_request",
        "overlap_seconds",
    ),
    *(
        ("GET", f"{path}?{query}", None, method, request(**fields), "invalid_request", field)
        for path, method, request in (
            ("/v1/admin/keys", "ListKeys", keys_pb2.ListKeysRequest),
            ("/v1/admin/audit-events", "ListAuditEvents", keys_pb2.ListAuditEventsRequest),
        )
        for query, fields, field in (
            ("page_size=-1", {"page_size": -1}, "page_size"),
            ("page_token=!", {"page_token": "!"}, "page_token"),
            ("page_token=YQ==", {"page_token": "YQ=="}, "page_token"),
        )
    ),
]


async def over_rest(twinspan: Running, verb: str, path: str, body: Any, token: str = TOKEN) -> Any:
    content = None if body is None else json.dumps(body)
    answer = await twinspan.rest.request(verb, path, content=content, headers={"Authorization": f"Bearer {token}"})
    said = answer.json()
    if answer.status_code == 200:
        return said
    return said["error_kind"], said["error"]["message"], said["error"]["param"]


async def over_grpc(channel: grpc.aio.Channel, method: str, request: Any, token: str = TOKEN) -> Any:
    metadata = [("authorization", f"Bearer {token}")]
    try:
        return as_json(await getattr(KeysServiceStub(channel), method)(request, metadata=metadata, timeout=5))
    except grpc.aio.AioRpcError as error:
        failure = errors.of_rpc(error)
        return failure.kind_name, failure.message, failure.param


def named(what: Any, name: str) -> Any:
    """Returns a path, a body or a request for the key or team of a name."""
    if isinstance(what, str):
        return what.replace("NAME", name)
    if what is None or isinstance(what, dict):
        return json.loads(json.dumps(what).replace("NAME", name))
    return type(what).FromString(what.SerializeToString().replace(b"NAME", name.encode()))


async def test_whatever_is_administered_is_the_same_on_every_surface(governed: Running) -> None:
    answers: dict[str, list[Any]] = {}
    for surface, name in (("rest", "ann1"), ("inprocess", "ann2"), ("network", "ann3")):
        assert len(name) == len("NAME")
        for verb, path, body, method, request in CALLS:
            if surface == "rest":
                answer = await over_rest(governed, verb, named(path, name), named(body, name))
            else:
                answer = await over_grpc(getattr(governed, surface), method, named(request, name))
            answers.setdefault(surface, []).append(json.loads(json.dumps(plain(answer)).replace(name, "NAME")))
        log = (await governed.rest.get("/v1/admin/audit-events?page_size=8")).json()["events"]
        answers[surface].append(
            [[event["act"], event["actor"], event["subject"].replace(name, "NAME"), event["fields"]] for event in log]
        )
    assert answers["rest"] == answers["inprocess"] == answers["network"]
    assert answers["rest"][-1] == [
        ["team.delete", "client_token", "tNAME", []],
        ["team.update", "client_token", "tNAME", ["rpm", "tpm"]],
        ["team.create", "client_token", "tNAME", ["tpm"]],
        ["key.revoke", "client_token", "NAME", []],
        ["key.rotate", "client_token", "NAME", ["token"]],
        ["key.rotate", "client_token", "NAME", ["token"]],
        ["key.update", "client_token", "NAME", ["tpm"]],
        ["key.update", "client_token", "NAME", ["allowed_agents", "expires_at", "enabled", "team", "rpm", "tpm"]],
    ]
    assert governed.complaints() == []


async def test_a_refusal_is_the_same_on_every_surface(governed: Running) -> None:
    await create(governed, "NAME")
    for verb, path, body, method, request, kind, param in REFUSALS:
        said = await over_rest(governed, verb, path, body)
        assert (said[0], said[2]) == (kind, param), (path, body, said)
        for channel in (governed.inprocess, governed.network):
            assert await over_grpc(channel, method, request) == said
    assert len((await governed.rest.get("/v1/admin/audit-events")).json()["events"]) == 1
    assert governed.complaints() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{oops", None),
        (b"[]", None),
        (b'{"name": 7}', "name"),
        (b'{"name": "a", "rpm": "5"}', "rpm"),
        (b'{"name": "a", "rpm": 1.5}', "rpm"),
        (b'{"name": "a", "rpm": 9223372036854775808}', "rpm"),
        (b'{"name": "a", "roles": "user"}', "roles"),
        (b'{"name": "a", "roles": [1]}', "roles[0]"),
        (b'{"name": "a", "enabled": 1}', "enabled"),
        (b'{"name": "a", "rmp": 5}', "rmp"),
        (b'{"name": "a", "token": "ts-one-that-i-have-made-up"}', "token"),
    ],
)
async def test_a_body_that_says_something_else_is_refused(governed: Running, body: bytes, param: str | None) -> None:
    answer = await governed.rest.post("/v1/admin/keys", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await governed.rest.get("/v1/admin/keys")).json()["keys"][0]["source"] == "configuration"


async def test_a_mask_that_names_what_cannot_change_is_refused(governed: Running) -> None:
    await create(governed)
    for path in ("name", "id", "created_by", "nonsense"):
        request = keys_pb2.UpdateKeyRequest(id="ann", update_mask=FieldMask(paths=[path]))
        kind, message, param = await over_grpc(governed.network, "UpdateKey", request)
        assert (kind, param) == ("invalid_request", "update_mask")
        assert "allowed_agents" in message


async def test_nobody_but_administrators_governs_keys(governed: Running) -> None:
    user, reader = await create(governed, "user"), await create(governed, "reader", roles=["read-only"])
    admin = await create(governed, "root", roles=["admin"])
    narrow = await create(governed, "narrow", roles=["read-only"], allowed_endpoints=["GET /v1/admin/keys"])
    for verb, path, body, method, request in CALLS:
        for token in (user, reader):
            said = await over_rest(governed, verb, path, body, token)
            assert said[0] == "permission_denied"
            for channel in (governed.inprocess, governed.network):
                assert await over_grpc(channel, method, request, token) == said
        assert (await over_rest(governed, verb, path, body, "ts-nobody-knows-this"))[0] == "auth_failed"
    assert await status(governed, narrow, "/v1/admin/keys") == 200
    assert await status(governed, narrow, "/v1/admin/teams") == 403
    await create(governed, "zoe")
    answer = await governed.rest.post("/v1/admin/keys/zoe/revoke", headers={"Authorization": f"Bearer {admin}"})
    assert answer.status_code == 200
    [event] = (await governed.rest.get("/v1/admin/audit-events?page_size=1")).json()["events"]
    assert (event["actor"], event["act"], event["subject"]) == ("root", "key.revoke", "zoe")


async def test_the_list_leads_through_all_keys_and_teams_and_events(governed: Running) -> None:
    for number in range(3):
        await create(governed, f"k{number}")
        await governed.rest.post("/v1/admin/teams", json={"name": f"t{number}"})
    for path, what, names in (
        ("keys", "keys", ["k2", "k1", "k0", "configured"]),
        ("teams", "teams", ["core", "t0", "t1", "t2"]),
        ("audit-events", "events", ["t2", "k2", "t1", "k1", "t0", "k0"]),
    ):
        for size in (1, 2, 3, 500, 10_000):
            found, token = [], ""
            while True:
                page = (await governed.rest.get(f"/v1/admin/{path}", params={"page_size": size, "page_token": token})).json()
                assert len(page[what]) <= size
                found += [item.get("name") or item["subject"] for item in page[what]]
                if not (token := page["next_page_token"]):
                    break
            assert found == names, (path, size)


async def test_keys_and_teams_of_the_configuration_are_shown(governed: Running) -> None:
    shown = (await governed.rest.get("/v1/admin/keys/configured")).json()
    assert shown == {
        "id": "",
        "name": "configured",
        "roles": ["user"],
        "allowed_agents": [],
        "allowed_endpoints": [],
        "created_at": 0,
        "enabled": True,
        "rpm": 3,
        "budget_period": "total",
        "team": "core",
        "created_by": "",
        "source": "configuration",
    }
    [team] = (await governed.rest.get("/v1/admin/teams")).json()["teams"]
    assert (team["name"], team["budget_usd"], team["budget_period"], team["source"]) == ("core", 5.0, "month", "configuration")


# What a key may do, from the moment at which it is made


async def test_a_key_holds_at_once_with_its_rights_and_limits(governed: Running) -> None:
    token = await create(governed, rpm=2, allowed_agents=["model-1"])
    headers = {"Authorization": f"Bearer {token}"}
    answer = await governed.chat(HELLO, **headers)
    assert (answer.status_code, answer.headers["X-RateLimit-Limit-Requests"]) == (200, "2")
    assert (await governed.chat({**HELLO, "model": "another"}, **headers)).status_code in {403, 404}
    await governed.chat(HELLO, **headers)
    assert (await governed.chat(HELLO, **headers)).status_code == 429
    await governed.rest.patch("/v1/admin/keys/ann", json={"rpm": None})
    assert (await governed.chat(HELLO, **headers)).status_code == 200
    await governed.rest.patch("/v1/admin/keys/ann", json={"enabled": False})
    assert (await governed.chat(HELLO, **headers)).status_code == 403
    await governed.rest.patch("/v1/admin/keys/ann", json={"enabled": None, "expires_at": 1_000})
    refused = await governed.chat(HELLO, **headers)
    assert (refused.status_code, "expired" in refused.text) == (403, True)


async def test_a_rotated_key_has_a_new_token_and_for_a_while_the_old_one_too(governed: Running) -> None:
    old = await create(governed)
    middle = (await governed.rest.post("/v1/admin/keys/ann/rotate", json={"overlap_seconds": 60})).json()["token"]
    assert [await status(governed, token) for token in (old, middle)] == [200, 200]
    new = (await governed.rest.post("/v1/admin/keys/ann/rotate")).json()["token"]
    assert [await status(governed, token) for token in (old, middle, new)] == [403, 403, 200]
    await governed.rest.post("/v1/admin/keys/ann/revoke")
    assert [await status(governed, token) for token in (old, middle, new)] == [403, 403, 403]
    for path in ("/v1/admin/keys/ann/rotate", "/v1/admin/keys"):
        answer = await governed.rest.post(path, json={"name": "ann"} if path.endswith("keys") else {})
        assert (answer.status_code, answer.json()["error_kind"]) == (409, "conflict")
    assert (await governed.rest.patch("/v1/admin/keys/ann", json={"enabled": True})).status_code == 409


async def test_no_token_is_shown_again_or_logged_or_kept(governed: Running, tmp_path: Path) -> None:
    token = await create(governed)
    other = (await governed.rest.post("/v1/admin/keys/ann/rotate", json={"overlap_seconds": 60})).json()["token"]
    shown = [(await governed.rest.get(f"/v1/admin/{path}")).text for path in ("keys", "keys/ann", "audit-events")]
    logged = [record.getMessage() for record in governed.log.records]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state/twinspan").glob("keys.db*"))
    assert b"ann" in kept
    for secret in (token, other):
        assert not any(secret in text for text in (*shown, *logged))
        assert secret.encode() not in kept


async def test_nothing_is_written_before_the_first_key(governed: Running, tmp_path: Path) -> None:
    file = tmp_path / "state/twinspan/keys.db"
    for path in ("keys", "teams", "audit-events"):
        assert (await governed.rest.get(f"/v1/admin/{path}")).status_code == 200
    assert not file.exists()
    await create(governed)
    assert file.exists()


async def test_batches_run_with_the_rights_of_a_stored_key(governed: Running) -> None:
    token = await create(governed)
    async with governed.openai(token) as sdk:
        done = await ended(sdk, await begin(sdk, written(line(1), line(2))))
        assert done.request_counts is not None
        assert (done.status, done.request_counts.completed) == ("completed", 2)


async def test_a_reload_leaves_the_keys_of_the_store(governed: Running) -> None:
    token = await create(governed)
    await governed.gateway.core.reload()
    assert [await status(governed, known) for known in (token, CONFIGURED, TOKEN)] == [200, 200, 200]


# Several gateways over one store


async def test_what_is_changed_at_one_gateway_holds_at_the_other(upstream: Upstream, store: dict[str, str]) -> None:
    async with gateways(upstream, 2, keys=store) as (one, other):
        token = await create(one, roles=["admin"])
        assert (await status(one, token), await rpc_status(one, token)) == (200, "OK")
        await becomes(lambda: status(other, token), 200)
        assert await rpc_status(other, token) == "OK"
        await other.rest.patch("/v1/admin/keys/ann", json={"roles": ["user"]})
        assert await rpc_status(other, token) == "PERMISSION_DENIED"
        await becomes(lambda: rpc_status(one, token), "PERMISSION_DENIED")
        new = (await one.rest.post("/v1/admin/keys/ann/rotate")).json()["token"]
        await becomes(lambda: status(other, new), 200)
        assert await status(other, token) == 403
        await other.rest.post("/v1/admin/keys/ann/revoke")
        await becomes(lambda: status(one, new), 403)
        acts = [event["act"] for event in (await one.rest.get("/v1/admin/audit-events")).json()["events"]]
        assert acts == ["key.revoke", "key.rotate", "key.update", "key.create"]
        assert one.complaints() == other.complaints() == []


async def test_keys_outlive_the_gateway(upstream: Upstream, store: dict[str, str]) -> None:
    async with running_over(upstream, keys=store) as twinspan:
        token = await create(twinspan)
    async with running_over(upstream, keys=store) as twinspan:
        assert await status(twinspan, token) == 200


# Without the store


async def readiness(twinspan: Running) -> tuple[int, list[str]]:
    answer = await twinspan.rest.get("/readyz")
    return answer.status_code, list(answer.json().get("degraded", {}))


async def failures(twinspan: Running) -> float:
    for shown in (await twinspan.rest.get("/metrics")).text.splitlines():
        if shown.startswith("twinspan_key_store_failures_total "):
            return float(shown.split()[1])
    raise AssertionError


async def test_while_the_store_is_gone_the_keys_that_were_read_last_hold(upstream: Upstream) -> None:
    with PostgresqlServer() as server:
        async with running_over(upstream, keys={"url": server.url()}, api_keys=KEYS, teams=TEAMS) as twinspan:
            token = await create(twinspan)
            assert await readiness(twinspan) == (200, [])
            server.stop()
            await becomes(lambda: readiness(twinspan), (200, ["key_store"]))
            assert [await status(twinspan, known) for known in (token, CONFIGURED, "ts-unknown")] == [200, 200, 401]
            for verb, path, body, method, request in CALLS:
                kind, message, _ = said = await over_rest(twinspan, verb, path, body)
                assert kind == "overloaded"
                assert "/readyz" in message
                assert await over_grpc(twinspan.network, method, request) == said
            assert await failures(twinspan) > len(CALLS)
            server.start()
            await becomes(lambda: readiness(twinspan), (200, []))
            assert await status(twinspan, await create(twinspan, "zoe")) == 200
            # One line for the failure and one for its end, whatever number of looks failed, besides one for each administrator.
            watched = [said for said in twinspan.complaints() if "administered" not in said]
            assert len(watched) == 2
            assert "read last" in watched[0]


async def test_without_the_store_at_start_the_keys_of_the_configuration_hold_alone(upstream: Upstream) -> None:
    with PostgresqlServer() as server:
        server.stop()
        async with running_over(upstream, keys={"url": server.url()}, api_keys=KEYS, teams=TEAMS) as twinspan:
            assert await readiness(twinspan) == (200, ["key_store"])
            assert "configuration alone" in (await twinspan.rest.get("/readyz")).text
            assert [await status(twinspan, known) for known in (CONFIGURED, TOKEN)] == [200, 200]
            server.start()
            await becomes(lambda: readiness(twinspan), (200, []))
            assert await status(twinspan, await create(twinspan)) == 200


async def test_a_file_that_is_no_database_is_a_matter_for_whoever_runs_the_gateway(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "state/twinspan").mkdir(parents=True)
    (tmp_path / "state/twinspan/keys.db").write_bytes(b"This is no database. " * 100)
    async with running_over(upstream) as twinspan:
        assert await readiness(twinspan) == (200, ["key_store"])
        answer = await twinspan.rest.post("/v1/admin/keys", json={"name": "ann"})
        assert (answer.status_code, answer.json()["error_kind"]) == (503, "not_configured")
        assert "keys.url" in answer.text
        assert str(tmp_path) not in answer.text
        assert any(str(tmp_path) in said for said in twinspan.complaints())
