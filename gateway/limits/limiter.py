"""The limiter: whether a request may be made now, and what is left.

What a request needs of its key's limits, its team's and its agent's is claimed together before it is routed, and settled when its
answer is left: tokens and money with what was really used, places given back. What it needs of a provider's limits is claimed at
each attempt. Whoever has no limits costs nothing. Above are the exchange, its pursuits and the forwarder; below is the store, which
may be shared with other processes. If it cannot be reached, the configuration says whether that lets everything through or nothing.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.limits.claiming import BUDGET, BUSY_SECONDS, Claimed, Claiming, micro, once, refusal
from gateway.limits.estimate import Size
from gateway.limits.scopes import HOST, Scope
from gateway.limits.spending import Spending
from gateway.providers.provider import Provider
from gateway.state.claims import Amount, Claim, Left, Place, Rate, Settlement, Verdict
from gateway.state.store import Store, StoreError
from gateway.telemetry.recorder import Recorder

_log = logging.getLogger(__name__)
_COMPLAINT_SECONDS = 10.0
_MOST_SCOPES = 10_000


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in.

    Attributes:
        claims: What it has claimed.
    """

    claims: Sequence[Claimed]


class Limiter:
    """Lets requests in.

    Attributes:
        hosts_left: What was left of each host's limits at its last attempt, by host and what it is of.
    """

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        *,
        fails_open: Callable[[], bool],
        spending: Spending | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Makes a limiter.

        Args:
            store: Keeps what was claimed.
            recorder: Counts.
            fails_open: Returns whether requests are let in while the store cannot be reached.
            spending: Keeps what was spent where the store would forget it; None if it does not.
            clock: Seconds since 1970.
        """
        self._store = store
        self._recorder = recorder
        self._fails_open = fails_open
        self._spending = spending
        self._clock = clock
        self._unsettled: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        self._complained_at = 0.0
        self._process = secrets.token_hex(8)
        self._requests = 0
        self._claiming: dict[tuple[str, str], Claiming] = {}
        self.hosts_left: dict[tuple[str, str], int] = {}

    async def admit(
        self,
        scopes: Sequence[Scope],
        size: Callable[[], Size],
        reserve_usd: Callable[[], float],
        seconds: float,
        answer: dict[str, str],
    ) -> Admission | None:
        """Lets a request in, and tells the caller what is left.

        Args:
            scopes: Whose limits it must meet.
            size: Returns how many tokens it may take, as far as can be told ahead.
            reserve_usd: Returns what it may cost, as far as can be told ahead.
            seconds: How long it may take at most.
            answer: What the caller learns of the answer, to which `x-ratelimit-*` is added.

        Returns:
            What is to be settled; None if nothing limits the request.

        Raises:
            GatewayError: RATE_LIMITED or BUDGET_EXCEEDED; OVERLOADED if the store cannot be reached and that lets nothing through.
        """
        if not scopes:
            return None
        now, holder, size, reserve_usd = self._clock(), self._holder(), once(size), once(reserve_usd)
        claims = self._claims(scopes, size, reserve_usd, seconds, now, holder)
        verdict = await self._claim(claims) if claims else None
        if verdict is None:
            return None
        _tell(answer, claims, verdict.left)
        if verdict.refused is None:
            return Admission(claims)
        raise self._refused(claims, verdict)

    async def admit_host(
        self, provider: Provider, size: Callable[[], Size], seconds: float
    ) -> tuple[Admission | None, GatewayError | None]:
        """Lets an attempt at a provider in; returns what is to be settled, and why it is not let in.

        Raises:
            GatewayError: OVERLOADED if the store cannot be reached and that lets nothing through.
        """
        scope = Scope(HOST, provider.host, provider.allowance)
        claims = self._claims([scope], size, _nothing, seconds, self._clock(), self._holder())
        verdict = await self._claim(claims) if claims else None
        if verdict is None:
            return None, None
        for claimed, left in zip(claims, verdict.left, strict=True):
            self.hosts_left[provider.host, claimed.of] = left.left
        if verdict.refused is None:
            return Admission(claims), None
        return None, self._refused(claims, verdict)

    async def left(self, scopes: Sequence[Scope]) -> list[tuple[Claimed, Left]]:
        """Returns what somebody has left of each of their limits; nothing is claimed.

        Raises:
            StoreError: The store cannot be reached.
        """
        claims = self._claims(scopes, lambda: Size(0), _nothing, 0.0, self._clock(), "")
        if not claims:
            return []
        await self._make_known(claims)
        verdict = await self._store.left([_for_nothing(claimed.claim) for claimed in claims])
        if verdict.refused is not None:
            return list(zip(claims, verdict.left, strict=True))
        # A place cannot be asked for without taking it, so that the store leaves it out of what would be left.
        taken = [int(isinstance(claimed.claim, Place)) for claimed in claims]
        return [
            (claimed, replace(left, left=left.left + one)) for claimed, left, one in zip(claims, verdict.left, taken, strict=True)
        ]

    async def judge(
        self, scopes: Sequence[Scope], size: Callable[[], Size], reserve_usd: Callable[[], float], seconds: float
    ) -> GatewayError | None:
        """Returns why a request would not be let in; None if it would be. Nothing is claimed, and nothing is counted.

        Raises:
            StoreError: The store cannot be reached.
        """
        claims = self._claims(scopes, size, reserve_usd, seconds, self._clock(), "")
        if not claims:
            return None
        await self._make_known(claims)
        verdict = await self._store.left([claimed.claim for claimed in claims])
        return None if verdict.refused is None else refusal(claims[verdict.refused], verdict, verdict.left[verdict.refused])

    def settle(self, admission: Admission | None, tokens: int | None, usd: float | None = None) -> None:
        """Says what a request came to; it does not wait for the store.

        Args:
            admission: What was let in.
            tokens: How many tokens it has used; None if nobody knows, so that what was claimed counts.
            usd: What it has cost; None if nobody knows, so that what was reserved counts.
        """
        if admission is None:
            return
        micro_usd = None if usd is None else micro(usd)
        settlements = [one for claimed in admission.claims if (one := claimed.settlement(tokens, micro_usd)) is not None]
        if self._spending is not None:
            for one in settlements:
                if one.used and isinstance(one.claim, Amount):
                    self._spending.spent(one.claim, one.used)
        if self._store.settle_at_once(settlements):
            return
        self._unsettled += settlements
        if self._unsettled and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle())

    async def close(self) -> None:
        """Waits until everything is settled."""
        if self._settling is not None:
            await self._settling
        if self._spending is not None:
            await self._spending.close()

    def _claims(
        self,
        scopes: Sequence[Scope],
        size: Callable[[], Size],
        reserve_usd: Callable[[], float],
        seconds: float,
        now: float,
        holder: str,
    ) -> list[Claimed]:
        claims: list[Claimed] = []
        for scope in scopes:
            known = self._claiming.get((scope.kind, scope.name))
            if known is None or known.allowance is not scope.allowance:
                if len(self._claiming) >= _MOST_SCOPES:
                    self._claiming.clear()
                known = self._claiming[scope.kind, scope.name] = Claiming(scope)
            known.add(claims, size, reserve_usd, seconds, now, holder)
        return claims

    def _holder(self) -> str:
        self._requests += 1
        return f"{self._process}{self._requests:x}"

    async def _claim(self, claims: Sequence[Claimed]) -> Verdict | None:
        """Returns what came of claims; None if the store cannot be reached, and that lets requests in."""
        try:
            await self._make_known(claims)
            return await self._store.claim([claimed.claim for claimed in claims])
        except StoreError as error:
            self._complain(error)
            if self._fails_open():
                return None
            raise GatewayError(
                ErrorKind.ERROR_KIND_OVERLOADED,
                "Limits cannot be checked at the moment, and nothing is let in unchecked here. Try again in a moment.",
                retry_after=BUSY_SECONDS,
            ) from error

    async def _make_known(self, claims: Sequence[Claimed]) -> None:
        """Tells the store what of a budget was spent before it was started."""
        spending = self._spending
        if spending is None:
            return
        for claimed in claims:
            claim = claimed.claim
            if isinstance(claim, Amount) and (spent := await spending.news_of(claim.key)):
                await self._store.seed(claim, spent)

    def _refused(self, claims: Sequence[Claimed], verdict: Verdict) -> GatewayError:
        assert verdict.refused is not None  # noqa: S101 (for the type checker)
        claimed = claims[verdict.refused]
        if claimed.of == BUDGET:
            self._recorder.budget_exceeded(claimed.scope.kind)
        else:
            self._recorder.rate_limited(claimed.scope.kind, claimed.of)
        return refusal(claimed, verdict, verdict.left[verdict.refused])

    async def _settle(self) -> None:
        """Settles all that has gathered, together."""
        while self._unsettled:
            settlements, self._unsettled = self._unsettled, []
            try:
                await self._store.settle(settlements)
            except StoreError as error:
                self._complain(error)  # places lapse with their leases

    def _complain(self, error: StoreError) -> None:
        self._recorder.store_failed()
        if self._spending is not None:
            self._spending.recall()
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _COMPLAINT_SECONDS or not self._complained_at:
            self._complained_at = now
            _log.error("%s Limits are %s meanwhile.", error, "not held" if self._fails_open() else "refusing everything")


def _for_nothing(claim: Claim) -> Claim:
    return replace(claim, cost=0) if isinstance(claim, Rate) else claim


def _nothing() -> float:
    return 0.0


def _tell(answer: dict[str, str], claims: Sequence[Claimed], lefts: Sequence[Left]) -> None:
    """Adds what OpenAI's clients read, of whoever has least left: https://platform.openai.com/docs/guides/rate-limits."""
    least: dict[str, tuple[Rate, Left]] = {}
    for claimed, left in zip(claims, lefts, strict=True):
        claim = claimed.claim
        if isinstance(claim, Rate) and (claimed.of not in least or left.left < least[claimed.of][1].left):
            least[claimed.of] = (claim, left)
    for of, (claim, left) in least.items():
        answer[f"x-ratelimit-limit-{of}"] = str(claim.limit)
        answer[f"x-ratelimit-remaining-{of}"] = str(left.left)
        answer[f"x-ratelimit-reset-{of}"] = f"{left.full_seconds:.3f}s"
