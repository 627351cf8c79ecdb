"""How things stand at a moment: breakers, accounts, billing, hosts and conversations, beside what was counted over time.

Whoever wires the core says how they stand (`Recorder.conditions`); metrics and statistics show it. Of several processes that serve
together, each knows its own, and `merged` is what holds for all of them: the worst of each, and sums where there are sums.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

_SEVERITY: Final = {0: 0, 2: 1, 1: 2}
"""Which state of a breaker weighs more: open more than half-open, and that more than closed."""

_STATES: Final = ("closed", "open", "half-open")


class BreakerCondition(msgspec.Struct, frozen=True, array_like=True):
    """A breaker. `state` is 0 for closed, 1 for open and 2 for half-open; `remaining_seconds` how long it stays open."""

    agent: str
    provider: str
    model: str
    state: int
    failures: int = 0
    remaining_seconds: float = 0.0
    last_error: str = ""

    @property
    def state_name(self) -> str:
        """The state in a word."""
        return _STATES[self.state]


class AccountCondition(msgspec.Struct, frozen=True, array_like=True):
    """An account, for one model or, if that is empty, for all; `remaining_seconds` is how long it rests yet."""

    provider: str
    account: str
    model: str
    remaining_seconds: float
    last_error: str


class BillingCondition(msgspec.Struct, frozen=True, array_like=True):
    """How a provider is paid, what was spent there, and whether it is exhausted."""

    provider: str
    model: str
    spent_usd: float
    credit_usd: float | None
    remaining: float | None
    limit: float | None
    exhausted: bool
    remaining_seconds: float


class Conditions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How things stand.

    Attributes:
        breakers: Those that have moved or have something to remember, in alphabetical order.
        accounts: Those that rest or have rested.
        billing: Providers whose billing is configured.
        hosts: What may still be asked of a host: host, `requests` or `tokens`, how much.
        sessions: How many conversations stay with a target.
    """

    breakers: list[BreakerCondition] = []
    accounts: list[AccountCondition] = []
    billing: list[BillingCondition] = []
    hosts: list[tuple[str, str, int]] = []
    sessions: int = 0


def merged(several: Iterable[Conditions]) -> Conditions:
    """Returns what holds for several processes: the worst of each thing, the most that any knows to be spent, and all sessions."""
    breakers: dict[tuple[str, str, str], BreakerCondition] = {}
    accounts: dict[tuple[str, str, str], AccountCondition] = {}
    billing: dict[str, BillingCondition] = {}
    hosts: dict[tuple[str, str], int] = {}
    sessions = 0
    for one in several:
        for breaker in one.breakers:
            key = (breaker.agent, breaker.provider, breaker.model)
            if key not in breakers or _weight(breaker) > _weight(breakers[key]):
                breakers[key] = breaker
        for account in one.accounts:
            key = (account.provider, account.account, account.model)
            if key not in accounts or account.remaining_seconds > accounts[key].remaining_seconds:
                accounts[key] = account
        for bill in one.billing:
            known = billing.get(bill.provider)
            if known is None or (bill.exhausted, bill.spent_usd) > (known.exhausted, known.spent_usd):
                billing[bill.provider] = bill
        for host, of, left in one.hosts:
            hosts[host, of] = min(left, hosts.get((host, of), left))
        sessions += one.sessions
    return Conditions(
        [breaker for _, breaker in sorted(breakers.items())],
        [account for _, account in sorted(accounts.items())],
        list(billing.values()),
        [(host, of, left) for (host, of), left in hosts.items()],
        sessions,
    )


def _weight(breaker: BreakerCondition) -> tuple[int, float, int]:
    return _SEVERITY[breaker.state], breaker.remaining_seconds, breaker.failures
