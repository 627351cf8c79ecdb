"""Policy: who may call what. One table serves both surfaces, since a route's right is the right of the RPC it becomes.

Each method states its right as the option `(twinspan.v1.access)`. Services of other packages have theirs in `_FOREIGN`: health is
for everyone, and so is reflection, since the protos are public and a client must be able to read them before it has a credential;
channelz shows connections, and is for administrators.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from google.api import annotations_pb2 as http_annotations
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from twinspan.v1 import annotations_pb2
from twinspan.v1.annotations_pb2 import Access
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import ADMIN, READ_ONLY, USER, Principal
from gateway.errors import GatewayError

_FOREIGN: Mapping[str, Access.ValueType] = {
    "grpc.health.v1.Health": annotations_pb2.ACCESS_PUBLIC,
    "grpc.reflection.v1alpha.ServerReflection": annotations_pb2.ACCESS_PUBLIC,
    "grpc.reflection.v1.ServerReflection": annotations_pb2.ACCESS_PUBLIC,
}
_CHAT_ROUTES = ("POST /v1/chat/completions",)
_DIALECT_ROUTES: Mapping[str, tuple[str, ...]] = {
    "/twinspan.v1.ChatService/Complete": _CHAT_ROUTES,
    "/twinspan.v1.ChatService/Stream": _CHAT_ROUTES,
    "/twinspan.v1.BatchesService/Create": ("POST /v1/batches",),
    "/twinspan.v1.AudioService/Speak": ("POST /v1/audio/speech",),
    "/twinspan.v1.AudioService/Transcribe": ("POST /v1/audio/transcriptions",),
    "/twinspan.v1.AudioService/Translate": ("POST /v1/audio/translations",),
    "/twinspan.v1.ImagesService/Edit": ("POST /v1/images/edits",),
    "/twinspan.v1.ImagesService/Vary": ("POST /v1/images/variations",),
    "/twinspan.v1.CompletionsService/Complete": ("POST /v1/completions",),
    "/twinspan.v1.CompletionsService/Stream": ("POST /v1/completions",),
    "/twinspan.v1.ResponsesService/Create": ("POST /v1/responses",),
    "/twinspan.v1.ResponsesService/Stream": ("POST /v1/responses",),
    "/twinspan.v1.ResponsesService/GetStream": ("GET /v1/responses/{id}",),
    "/twinspan.v1.ImagesService/Generate": ("POST /v1/images/generations",),
    "/twinspan.v1.ImagesService/GenerateStream": ("POST /v1/images/generations",),
    "/twinspan.v1.AdminService/Explain": ("POST /v1/explain",),
    "/twinspan.v1.AdminService/Profile": ("GET /debug/pprof/{kind}",),
    "/twinspan.v1.FilesService/Upload": ("POST /v1/files",),
    "/twinspan.v1.FilesService/Download": ("GET /v1/files/{id}/content",),
}
"""The routes of methods that dialects call; those of all others are in their annotations."""

_ROUTED_BY_REQUEST = frozenset({"/twinspan.v1.ProxyService/Forward"})
"""Methods whose route is in what they are asked, so that they check it themselves, by `Policy.check_route`."""

_ROLES: Mapping[Access.ValueType, frozenset[str]] = {
    annotations_pb2.ACCESS_READ: frozenset({READ_ONLY, USER, ADMIN}),
    annotations_pb2.ACCESS_USE: frozenset({USER, ADMIN}),
    annotations_pb2.ACCESS_ADMIN: frozenset({ADMIN}),
}
_ADMIN_ONLY = frozenset({ADMIN})


class DeniedError(GatewayError):
    """A known credential does not allow a request.

    Attributes:
        reason: Why, for the metric: `disabled`, `expired`, `role`, `endpoint` or `agent`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(ErrorKind.ERROR_KIND_PERMISSION_DENIED, message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Right:
    """What a method asks for.

    Attributes:
        public: Whether it asks for nothing.
        roles: The roles that may call it.
        routes: Its REST routes, as `METHOD /path` with the path's variables as `*`.
        routed_by_request: Whether its route is known only from what it is asked.
    """

    public: bool
    roles: frozenset[str]
    routes: tuple[str, ...]
    routed_by_request: bool = False


class Policy:
    """The permission table."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        """Reads the rights of all methods of these services."""
        self._rights = {
            f"/{service.full_name}/{method.name}": _right_of(service, method) for service in services for method in service.methods
        }

    def is_public(self, method: str) -> bool:
        """Tells whether a method may be called without a credential.

        Args:
            method: The full name, such as `/twinspan.v1.ChatService/Stream`.
        """
        return self._right(method).public

    def check(self, principal: Principal | None, method: str, *, now: datetime, agent_or_model: str | None = None) -> None:
        """Makes sure that a call may be made.

        Args:
            principal: Who calls; None without a known credential. On a public method it does not matter.
            method: The full name of the method.
            now: The time.
            agent_or_model: The agent or model that the call names, if it names one.

        Raises:
            GatewayError: AUTH_FAILED without a known credential.
            DeniedError: The credential does not allow the call.
        """
        right = self._right(method)
        if right.public:
            return
        if principal is None:
            raise GatewayError(
                ErrorKind.ERROR_KIND_AUTH_FAILED,
                "The credential is missing or unknown. Send 'Authorization: Bearer <token>' with a token of this gateway.",
            )
        if not principal.enabled:
            raise DeniedError("disabled", f"The key '{principal.name}' is disabled. Ask whoever gave it to you.")
        if principal.expires_at is not None and now >= principal.expires_at:
            raise DeniedError("expired", f"The key '{principal.name}' has expired. Ask whoever gave it to you for a new one.")
        if ADMIN in principal.roles:
            return
        if principal.allowed_endpoints:
            if not right.routed_by_request and not _reaches(principal.allowed_endpoints, right.routes):
                raise DeniedError("endpoint", f"The key '{principal.name}' may not call this endpoint.")
        elif right.roles.isdisjoint(principal.roles):
            needed = " or ".join(sorted(right.roles))
            raise DeniedError("role", f"The key '{principal.name}' may not do this: it needs the role {needed}.")
        if agent_or_model is not None and not principal.allows(agent_or_model):
            raise DeniedError(
                "agent", f"The key '{principal.name}' may not use '{agent_or_model}'. GET /v1/models lists what it may."
            )

    def check_route(self, principal: Principal | None, route: str) -> None:
        """Makes sure that a caller who may call a method may ask it for this route.

        Args:
            principal: Who calls.
            route: The route itself, as `METHOD /path`. A pattern's last `*` covers all further segments of it.

        Raises:
            DeniedError: The credential does not allow the route.
        """
        if principal is None or ADMIN in principal.roles or not principal.allowed_endpoints:
            return
        asked = _segments(route)
        if not any(_covers_all(_segments(pattern), asked) for pattern in principal.allowed_endpoints):
            raise DeniedError("endpoint", f"The key '{principal.name}' may not call this endpoint.")

    def _right(self, method: str) -> _Right:
        right = self._rights.get(method)
        if right is not None:
            return right
        service = method.removeprefix("/").rpartition("/")[0]
        public = _FOREIGN.get(service) == annotations_pb2.ACCESS_PUBLIC
        return _Right(public=public, roles=_ADMIN_ONLY, routes=())


def _right_of(service: ServiceDescriptor, method: MethodDescriptor) -> _Right:
    options = method.GetOptions()
    access = options.Extensions[annotations_pb2.access]
    name = f"/{service.full_name}/{method.name}"
    rule = options.Extensions[http_annotations.http]
    bound = [(one, one.WhichOneof("pattern")) for one in (rule, *rule.additional_bindings)]
    routes = tuple(f"{verb.upper()} {getattr(one, verb)}" for one, verb in bound if verb) or _DIALECT_ROUTES.get(name, ())
    return _Right(
        public=access == annotations_pb2.ACCESS_PUBLIC,
        roles=_ROLES.get(access, _ADMIN_ONLY),
        routes=tuple(re.sub(r"\{[^}]*\}", "*", route) for route in routes),
        routed_by_request=name in _ROUTED_BY_REQUEST,
    )


def _reaches(patterns: Iterable[str], routes: Iterable[str]) -> bool:
    """Tells whether one of the patterns covers one of the routes: segment by segment, where a pattern's `*` covers any one of them.

    A route's variable is one segment here, whatever it holds, and is covered by `*` alone.
    """
    return any(_covers(pattern.split("/"), route.split("/")) for pattern in patterns for route in routes)


def _covers(pattern: list[str], route: list[str]) -> bool:
    return len(pattern) == len(route) and all(given in ("*", part) for given, part in zip(pattern, route, strict=True))


def _segments(route: str) -> list[str]:
    """Returns a route's method and the segments of its path."""
    method, _, path = route.partition(" ")
    return [method, *path.removeprefix("/").split("/")]


def _covers_all(pattern: list[str], route: list[str]) -> bool:
    if pattern[-1] == "*" and len(route) > len(pattern):
        route = route[: len(pattern)]
    return _covers(pattern, route)
