"""What a request claims of somebody's limits, and what is said if there is not enough. Pure: the time is passed in."""

from collections.abc import Callable
from math import ceil
from typing import Final, TypeVar

from msgspec import Struct
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.errors import GatewayError
from gateway.limits.estimate import Size
from gateway.limits.periods import period_of
from gateway.limits.scopes import HOST, Scope
from gateway.state.claims import MICRO, Amount, Claim, Left, Place, Rate, Settlement, Verdict

REQUESTS, TOKENS, PLACES, BUDGET = "requests", "tokens", "parallel", "budget"
_SAYS: Final = {
    REQUESTS: "requests a minute",
    TOKENS: "tokens a minute",
    PLACES: "requests at a time",
}
_LEASE_SLACK_SECONDS: Final = 60.0
T = TypeVar("T")

BUSY_SECONDS: Final = 1.0
"""When to come again where nobody can say when a place is given back."""


class Claimed(Struct, frozen=True):
    """One claim of a request.

    Attributes:
        scope: Whose limit it is.
        of: `requests`, `tokens`, `parallel` or `budget`.
        claim: The claim.
        renews_seconds: When a budget is whole again; 0 for never.
    """

    scope: Scope
    of: str
    claim: Claim
    renews_seconds: float = 0.0

    def settlement(self, tokens: int | None, micro_usd: int | None) -> Settlement | None:
        """Returns what it came to; None if what was claimed is what it came to.

        Args:
            tokens: How many tokens were used; None if nobody knows.
            micro_usd: What was spent, in millionths of a dollar; None if nobody knows, so that what was reserved counts.
        """
        claim = self.claim
        match claim:
            case Place():
                return Settlement(claim)
            case Amount():
                return Settlement(claim, claim.amount if micro_usd is None else micro_usd)
            case _:
                return None if tokens is None or self.of == REQUESTS else Settlement(claim, tokens)


class Claiming:
    """What requests claim of one scope, as far as that is the same for all of them."""

    __slots__ = ("_requests", "allowance", "scope")

    def __init__(self, scope: Scope) -> None:
        """Takes a scope."""
        self.scope = scope
        self.allowance = allowance = scope.allowance
        self._requests = Claimed(scope, REQUESTS, Rate(f"rpm:{scope.id}", allowance.rpm)) if allowance.rpm else None

    def add(
        self,
        claims: list[Claimed],
        size: Callable[[], Size],
        reserve_usd: Callable[[], float],
        seconds: float,
        now: float,
        holder: str,
    ) -> None:
        """Adds what a request claims.

        Args:
            claims: What it claims.
            size: Returns how many tokens it may take.
            reserve_usd: Returns what it may cost.
            seconds: How long it may take at most.
            now: The time, in seconds since 1970.
            holder: Who claims: an id that no other request has, of this process or of another.
        """
        scope, allowance = self.scope, self.allowance
        if self._requests is not None:
            claims.append(self._requests)
        if allowance.tpm:
            claims.append(Claimed(scope, TOKENS, Rate(f"tpm:{scope.id}", allowance.tpm, size().total)))
        lease_seconds = seconds + _LEASE_SLACK_SECONDS
        if allowance.max_parallel:
            claims.append(Claimed(scope, PLACES, Place(f"parallel:{scope.id}", allowance.max_parallel, holder, lease_seconds)))
        if allowance.budget_usd is not None:
            period = period_of(allowance.budget_period, now)
            amount = Amount(
                f"budget:{scope.id}:{period.name}",
                micro(allowance.budget_usd),
                micro(reserve_usd()),
                holder,
                lease_seconds,
                period.keep_seconds(now),
            )
            claims.append(Claimed(scope, BUDGET, amount, period.wait_seconds(now)))


def once(ask: Callable[[], T]) -> Callable[[], T]:
    """Returns what asks once, and tells the same again however often it is asked."""
    known: list[T] = []

    def told() -> T:
        if not known:
            known.append(ask())
        return known[0]

    return told


def micro(usd: float) -> int:
    """Returns an amount in millionths of a dollar, rounded up, so that what costs something is never free."""
    return ceil(round(usd * MICRO, 6))


def refusal(claimed: Claimed, verdict: Verdict, left: Left) -> GatewayError:
    """Returns the error of a request whose claim could not be met."""
    scope, claim = claimed.scope, claimed.claim
    whose = f"The {'provider at' if scope.kind == HOST else scope.kind} '{scope.name}'"
    if isinstance(claim, Amount):
        again = "It is renewed when the next period begins." if claimed.renews_seconds else "Ask for more, or use another key."
        return GatewayError(
            ErrorKind.ERROR_KIND_BUDGET_EXCEEDED,
            f"{whose} has ${left.left / MICRO:.6f} left of its budget of ${claim.limit / MICRO:.6f}"
            f" ({scope.allowance.budget_period}), and the request may cost ${claim.amount / MICRO:.6f}. {again}",
            retry_after=claimed.renews_seconds or None,
        )
    most = claim.limit if isinstance(claim, Rate) else claim.most
    return GatewayError(
        ErrorKind.ERROR_KIND_RATE_LIMITED,
        f"{whose} may have {most} {_SAYS[claimed.of]}. Try again later.",
        retry_after=verdict.retry_seconds or BUSY_SECONDS,
    )
