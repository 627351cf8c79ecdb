"""Finds the endpoint of a request by method and path.

Paths are written as in `google.api.http`: `{name}` stands for one segment, `{name=**}` for all that follow. Source:
https://github.com/googleapis/googleapis/blob/master/google/api/http.proto.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from aiohttp import web
from google.protobuf.descriptor import MethodDescriptor
from twinspan.v1.errors_pb2 import ErrorKind

from bridge.call import Call
from bridge.errors import BridgeError

Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]
_VARIABLE = re.compile(r"\{(\w+)(=\*\*)?\}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers requests of one method and path.

    Attributes:
        method: The HTTP method; `*` for any.
        template: The path with its variables, which is also the route's name in spans and metrics.
        handler: Answers.
        rpcs: The methods that it calls, the unary one first; none for a route of the bridge's own.
        takes: The type of its body, if it takes one.
        gives: The type of its answer; empty for what follows from its methods: JSON, and events where they are streamed.
        summary: What a route of the bridge's own is for.
        statuses: The statuses with which such a route answers.
        described: Whether the OpenAPI document has it; not if its answers are somebody else's, or no HTTP.
    """

    method: str
    template: str
    handler: Handler
    rpcs: tuple[MethodDescriptor, ...] = ()
    takes: str = "application/json"
    gives: str = ""
    summary: str = ""
    statuses: tuple[HTTPStatus, ...] = (HTTPStatus.OK,)
    described: bool = True


class MethodNotAllowedError(BridgeError):
    """The path is known, but not with this method.

    Attributes:
        allowed: The methods that it has, for the header `Allow`.
    """

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        names = ", ".join(allowed)
        super().__init__(ErrorKind.ERROR_KIND_METHOD_NOT_ALLOWED, f"{path} does not take {method}. It takes {names}.")
        self.allowed = names


class Router:
    """The bridge's routes."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Endpoint]]] = []

    def add(self, endpoint: Endpoint) -> None:
        """Adds a route. Of patterns that fit one path, the one that was added first answers."""
        if "{" not in endpoint.template:
            self._exact.setdefault(endpoint.template, {})[endpoint.method] = endpoint
            return
        pattern = re.compile(_VARIABLE.sub(_group, endpoint.template), re.DOTALL)
        for known, methods in self._patterns:
            if known == pattern:
                methods[endpoint.method] = endpoint
                return
        self._patterns.append((pattern, {endpoint.method: endpoint}))

    def endpoints(self) -> Iterator[Endpoint]:
        """Gives every route."""
        for methods in (*self._exact.values(), *(methods for _, methods in self._patterns)):
            yield from methods.values()

    def find(self, method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
        """Returns the endpoint of a request, and the values of the path's variables. HEAD is answered where GET is.

        Raises:
            BridgeError: No route has this path, or none with this method.
        """
        methods = self._exact.get(path)
        variables: Mapping[str, str] = {}
        if methods is None:
            for pattern, candidates in self._patterns:
                if match := pattern.fullmatch(path):
                    methods, variables = candidates, match.groupdict()
                    break
            else:
                raise BridgeError(
                    ErrorKind.ERROR_KIND_NOT_FOUND,
                    f"There is no route {method[:16]} {path[:256]}. Check the base URL: it ends in /v1.",
                )
        endpoint = methods.get("GET" if method == "HEAD" else method) or methods.get("*")
        if endpoint is None:
            raise MethodNotAllowedError(method[:16], path[:256], sorted(methods))
        return endpoint, variables


def variables_of(template: str) -> frozenset[str]:
    """Returns the names of a path's variables."""
    return frozenset(name for name, _ in _VARIABLE.findall(template))


def _group(variable: "re.Match[str]") -> str:
    name, rest = variable.groups()
    return f"(?P<{name}>.+)" if rest else f"(?P<{name}>[^/]+)"
