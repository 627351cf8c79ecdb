"""The limiter: whether a key may ask now, and what it has left.

A key's requests, tokens and places are claimed together before a request is routed, and settled when its answer is left: tokens
with what was really used, places given back. A key without limits costs nothing. Above are the exchange and the forwarder; below
is the store, which may be shared with other processes. If it cannot be reached, the configuration says whether that lets
everything through or nothing.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import Principal
from gateway.errors import GatewayError
from gateway.state.claims import Claim, Left, Place, Rate, Settlement
from gateway.state.store import Store, StoreError
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)

_REQUESTS, _TOKENS, _PLACES = "requests", "tokens", "parallel"
_SAYS = {
    _REQUESTS: "requests a minute",
    _TOKENS: "tokens a minute",
    _PLACES: "requests at a time",
}
_LEASE_SLACK_SECONDS = 60.0
_BUSY_SECONDS = 1.0
"""When to come again where nobody can say when a place is given back."""

_COMPLAINT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in.

    Attributes:
        claims: What it has claimed, by what it is of.
    """

    claims: Sequence[tuple[str, Claim]]


class Limiter:
    """Lets requests in."""

    def __init__(self, store: Store, recorder: Recorder, *, fails_open: Callable[[], bool]) -> None:
        """Makes a limiter.

        Args:
            store: Keeps what was claimed.
            recorder: Counts.
            fails_open: Returns whether requests are let in while the store cannot be reached.
        """
        self._store = store
        self._recorder = recorder
        self._fails_open = fails_open
        self._settling: set[asyncio.Task[None]] = set()
        self._complained_at = 0.0

    async def admit(
        self, key: Principal | None, tokens: Callable[[], int], seconds: float, answer: dict[str, str]
    ) -> Admission | None:
        """Lets a request in, and tells the caller what the key has left.

        Args:
            key: Who asks; None for nobody in particular.
            tokens: Returns how many tokens it may take, as far as can be told ahead.
            seconds: How long it may take at most.
            answer: What the caller learns of the answer, to which `x-ratelimit-*` is added.

        Returns:
            What is to be settled; None if nothing limits the key.

        Raises:
            GatewayError: RATE_LIMITED; OVERLOADED if the store cannot be reached and that lets nothing through.
        """
        claims = _claims(key, tokens, seconds)
        if not claims:
            return None
        try:
            verdict = await self._store.claim([claim for _, claim in claims])
        except StoreError as error:
            self._complain(error)
            if self._fails_open():
                return None
            raise GatewayError(
                ErrorKind.ERROR_KIND_OVERLOADED,
                "Limits cannot be checked at the moment, and nothing is let in unchecked here. Try again in a moment.",
                retry_after=_BUSY_SECONDS,
            ) from error
        for (of, claim), left in zip(claims, verdict.left, strict=True):
            _tell(answer, of, claim, left)
        if verdict.refused is None:
            return Admission(claims)
        of, claim = claims[verdict.refused]
        self._recorder.rate_limited(of)
        most = claim.most if isinstance(claim, Place) else claim.limit if isinstance(claim, Rate) else 0
        raise GatewayError(
            ErrorKind.ERROR_KIND_RATE_LIMITED,
            f"The key '{key.name if key else ''}' may have {most} {_SAYS[of]}. Try again later.",
            retry_after=verdict.retry_seconds or _BUSY_SECONDS,
        )

    def settle(self, admission: Admission | None, tokens: int | None) -> None:
        """Says what a request came to; it does not wait for the store.

        Args:
            admission: What was let in.
            tokens: How many tokens it has used; None if nobody knows, so that what was claimed counts.
        """
        if admission is None:
            return
        settlements = [
            Settlement(claim, tokens or 0)
            for of, claim in admission.claims
            if of == _PLACES or (of == _TOKENS and tokens is not None)
        ]
        if settlements:
            task = asyncio.create_task(self._settle(settlements))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Waits until everything is settled."""
        await asyncio.gather(*self._settling, return_exceptions=True)

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        try:
            await self._store.settle(settlements)
        except StoreError as error:
            self._complain(error)  # places lapse with their leases

    def _complain(self, error: StoreError) -> None:
        self._recorder.store_failed()
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _COMPLAINT_SECONDS or not self._complained_at:
            self._complained_at = now
            _log.error("%s Limits are %s meanwhile.", error, "not held" if self._fails_open() else "refusing everything")


def _claims(key: Principal | None, tokens: Callable[[], int], seconds: float) -> list[tuple[str, Claim]]:
    if key is None:
        return []
    own = key.allowance
    claims: list[tuple[str, Claim]] = []
    if own.rpm:
        claims.append((_REQUESTS, Rate(f"rpm:{key.name}", own.rpm)))
    if own.tpm:
        claims.append((_TOKENS, Rate(f"tpm:{key.name}", own.tpm, tokens())))
    if own.max_parallel:
        place = Place(f"parallel:{key.name}", own.max_parallel, secrets.token_hex(8), seconds + _LEASE_SLACK_SECONDS)
        claims.append((_PLACES, place))
    return claims


def _tell(answer: dict[str, str], of: str, claim: Claim, left: Left) -> None:
    """Adds what OpenAI's clients read: https://platform.openai.com/docs/guides/rate-limits."""
    if isinstance(claim, Rate):
        answer[f"x-ratelimit-limit-{of}"] = str(claim.limit)
        answer[f"x-ratelimit-remaining-{of}"] = str(left.left)
        answer[f"x-ratelimit-reset-{of}"] = f"{left.full_seconds:.3f}s"
