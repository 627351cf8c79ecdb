"""The permission table: which key may call what. One table serves both surfaces, so it is tested at the policy itself."""

from datetime import UTC, datetime, timedelta

import pytest
from twinspan.v1 import admin_pb2, batches_pb2, chat_pb2, files_pb2, keys_pb2, models_pb2, proxy_pb2
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import ApiKey, KeyRing, Principal, generate_token
from gateway.access.policy import DeniedError, Policy
from gateway.errors import GatewayError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMPLETE = "/twinspan.v1.ChatService/Complete"
STREAM = "/twinspan.v1.ChatService/Stream"
LIST = "/twinspan.v1.ModelsService/List"
GET = "/twinspan.v1.ModelsService/Get"
STATS = "/twinspan.v1.AdminService/GetStats"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CHANNELZ = "/grpc.channelz.v1.Channelz/GetServers"
UNKNOWN = "/someone.else.Service/Method"
UPLOAD = "/twinspan.v1.FilesService/Upload"
DOWNLOAD = "/twinspan.v1.FilesService/Download"
CREATE = "/twinspan.v1.BatchesService/Create"
# Its route is in what it is asked: a key with endpoints of its own is let in, and `Policy.check_route` decides on each request.
FORWARD = "/twinspan.v1.ProxyService/Forward"
CREATE_KEY, ROTATE_KEY, LIST_KEYS, DELETE_TEAM, LIST_EVENTS = GOVERN = tuple(
    f"/twinspan.v1.KeysService/{name}" for name in ("CreateKey", "RotateKey", "ListKeys", "DeleteTeam", "ListAuditEvents")
)
ALL = {*GOVERN, COMPLETE, STREAM, LIST, GET, UPLOAD, DOWNLOAD, CREATE, FORWARD, STATS, HEALTH, REFLECTION, CHANNELZ, UNKNOWN}
PUBLIC = {STATS, HEALTH, REFLECTION}


@pytest.fixture
def policy() -> Policy:
    files = (chat_pb2, models_pb2, files_pb2, batches_pb2, proxy_pb2, admin_pb2, keys_pb2)
    return Policy(service for file in files for service in file.DESCRIPTOR.services_by_name.values())


def key(
    *roles: str, endpoints: tuple[str, ...] = (), agents: tuple[str, ...] = (), enabled: bool = True, days: int = 1
) -> Principal:
    return Principal(
        "ann",
        roles=frozenset(roles),
        allowed_endpoints=endpoints,
        allowed_agents=frozenset(agents),
        enabled=enabled,
        expires_at=NOW + timedelta(days=days),
    )


def reach(policy: Policy, principal: Principal | None, agent: str | None = None) -> set[str]:
    """Returns the methods that somebody may call."""
    reached = set()
    for method in ALL:
        try:
            policy.check(principal, method, now=NOW, agent_or_model=agent)
        except GatewayError as error:
            if error.kind != (ErrorKind.ERROR_KIND_AUTH_FAILED if principal is None else ErrorKind.ERROR_KIND_PERMISSION_DENIED):
                raise
        else:
            reached.add(method)
    return reached


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (None, PUBLIC),
        (key("admin"), ALL),
        (key("user"), {*PUBLIC, COMPLETE, STREAM, LIST, GET, UPLOAD, DOWNLOAD, CREATE, FORWARD}),
        (key("read-only"), {*PUBLIC, LIST, GET, DOWNLOAD}),
        (key("read-only", "user"), {*PUBLIC, COMPLETE, STREAM, LIST, GET, UPLOAD, DOWNLOAD, CREATE, FORWARD}),
        (key("user", enabled=False), PUBLIC),
        (key("admin", enabled=False), PUBLIC),
        (key("user", days=-1), PUBLIC),
        (key("user", days=0), PUBLIC),
        (key("read-only", endpoints=("POST /v1/chat/completions",)), {*PUBLIC, COMPLETE, STREAM, FORWARD}),
        (key("user", endpoints=("GET /v1/models",)), {*PUBLIC, LIST, FORWARD}),
        (key("user", endpoints=("GET /v1/models/*",)), {*PUBLIC, GET, FORWARD}),
        (key("user", endpoints=("GET /v1/*",)), {*PUBLIC, LIST, FORWARD}),
        (key("user", endpoints=("POST /v1/batches",)), {*PUBLIC, CREATE, FORWARD}),
        (key("user", endpoints=("POST /v1/files", "GET /v1/files/*/content")), {*PUBLIC, UPLOAD, DOWNLOAD, FORWARD}),
        (key("user", endpoints=("GET /elsewhere",)), {*PUBLIC, FORWARD}),
        (
            key("read-only", endpoints=("GET /v1/admin/*", "POST /v1/admin/keys/*/rotate")),
            {*PUBLIC, LIST_KEYS, LIST_EVENTS, ROTATE_KEY, FORWARD},
        ),
        (
            key("user", endpoints=("POST /v1/admin/keys", "DELETE /v1/admin/teams/*")),
            {*PUBLIC, CREATE_KEY, DELETE_TEAM, FORWARD},
        ),
    ],
    ids=[
        "nobody",
        "an administrator",
        "a user",
        "a reader",
        "a reader and user",
        "a disabled user",
        "a disabled administrator",
        "a user of yesterday",
        "a user until now",
        "a reader allowed to chat",
        "a user allowed to list",
        "a user allowed to look one up",
        "a user allowed one segment",
        "a user allowed to make batches",
        "a user allowed to keep files",
        "a user allowed what is not there",
        "a reader allowed to see keys and to rotate one",
        "a user allowed to make keys and to delete teams",
    ],
)
def test_a_key_reaches_what_its_roles_or_endpoints_say(policy: Policy, principal: Principal | None, expected: set[str]) -> None:
    assert reach(policy, principal) == expected


def test_a_key_bound_to_agents_may_name_no_other(policy: Policy) -> None:
    bound = key("user", agents=("smart",))
    assert reach(policy, bound, "smart") == {*PUBLIC, COMPLETE, STREAM, LIST, GET, UPLOAD, DOWNLOAD, CREATE, FORWARD}
    assert reach(policy, bound, "other") == PUBLIC
    assert reach(policy, key("admin", agents=("smart",)), "other") == ALL


@pytest.mark.parametrize(
    ("principal", "reason"),
    [
        (key("user", enabled=False), "disabled"),
        (key("user", days=-1), "expired"),
        (key("read-only"), "role"),
        (key("user", endpoints=("GET /v1/models",)), "endpoint"),
        (key("user", agents=("smart",)), "agent"),
    ],
)
def test_a_refusal_says_why(policy: Policy, principal: Principal, reason: str) -> None:
    with pytest.raises(DeniedError) as raised:
        policy.check(principal, STREAM, now=NOW, agent_or_model="other")
    assert raised.value.reason == reason
    assert "ann" in raised.value.message


def test_a_ring_knows_its_tokens_and_holds_none_of_them() -> None:
    token = generate_token()
    ring = KeyRing("ts-the-administrator", [ApiKey(token, key("user"))])
    found = ring.identify(token)
    assert found is not None
    assert found.name == "ann"
    for stranger in ("", token[:-1], token + "x", token.upper(), "ts-the-administrato", "\udcff"):
        assert ring.identify(stranger) is None
    assert token not in repr(ring._principals)
    assert token not in repr(ApiKey(token, key("user")))


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {generate_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("ts-") and len(token) == 46 for token in tokens)
