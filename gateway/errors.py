"""The one error of the core: what went wrong, as a kind, with the facts that a caller can act on.

The domain raises `GatewayError`; `gateway.rpc.errors` turns it into a `google.rpc.Status` at the edge. Nothing in this module knows
transport. The kinds, and what each means to HTTP and gRPC, are stated in `proto/twinspan/v1/errors.proto`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from twinspan.v1.errors_pb2 import ErrorKind


@dataclass(frozen=True, slots=True)
class UpstreamFacts:
    """What a provider said of its own error, which the client gets as it was.

    Attributes:
        status: The HTTP status of the provider's answer, 400 to 599.
        type: The provider's `type` of the error, if it gave one.
        param: The provider's `param`, if it gave one.
        code: The provider's `code`, if it gave one.
    """

    status: int
    type: str | None = None
    param: str | None = None
    code: str | None = None


class GatewayError(Exception):
    """A request that cannot be answered.

    Attributes:
        kind: What went wrong.
        message: A sentence for the caller that says what to do next. It never holds a secret or a detail of the gateway's inside.
        param: The path of the field at fault, such as `messages[0].content`.
        provider: The provider concerned, if there is one.
        model: The model concerned, if there is one.
        retry_after: Seconds after which a retry may succeed.
        code: A word for programs, where the kind is not enough; None for that of the kind.
        upstream: What the provider said, if the error is the provider's own.
        upstream_status: The HTTP status with which the provider said so, whoever's error it is; 0 if it did not.
    """

    def __init__(
        self,
        kind: ErrorKind.ValueType,
        message: str,
        *,
        param: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        upstream: UpstreamFacts | None = None,
        upstream_status: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.provider = provider
        self.model = model
        self.retry_after = retry_after
        self.code = code
        self.upstream = upstream
        self.upstream_status = upstream_status

    @property
    def kind_name(self) -> str:
        """The kind in lower snake case, such as `rate_limited`: the form of logs, labels and `error_kind`."""
        return KIND_NAMES[self.kind]


KIND_NAMES: Mapping[ErrorKind.ValueType, str] = {
    value: name.removeprefix("ERROR_KIND_").lower() for name, value in ErrorKind.items()
}
"""Each kind's name in lower snake case."""
