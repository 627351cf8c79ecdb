"""What a core knows of the other processes that serve with it, and what it is given in place of making it itself.

Above is `gateway.app`. What is behind `Siblings` is the command line's: a link to the process that supervises them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.local.engine import LocalEndpoint


@dataclass(frozen=True, slots=True)
class Standing:
    """How the processes stand.

    Attributes:
        started_at: When they were started as a whole, in seconds since 1970.
        workers: How many of them serve.
        restarts: How often one that had died was put in its place again.
        silences: How often one did not tell its counts in time, so that those that it had told before counted.
    """

    started_at: float
    workers: int = 1
    restarts: int = 0
    silences: int = 0


@dataclass(frozen=True, slots=True)
class Gathered:
    """What all processes have counted.

    Attributes:
        reports: A report of each (`gateway.telemetry.report`), in an order that stays, those of processes that have ended first.
        standing: How they stand.
    """

    reports: Sequence[bytes]
    standing: Standing


@dataclass(frozen=True, slots=True)
class Reloading:
    """What came of reading the configuration again.

    Attributes:
        mistakes: What is wrong with it, in words; empty if it is in force now.
        sources: The files that it was read from.
        warnings: What an operator should know of it, a sentence each.
        processes: How many processes serve from it.
    """

    mistakes: str = ""
    sources: Sequence[str] = ()
    warnings: Sequence[str] = ()
    processes: int = 1


class Siblings(Protocol):
    """The processes that serve together, this one among them."""

    async def gather(self) -> Gathered:
        """Returns what all have counted. One that does not answer at once counts with what it told before."""

    async def reload(self) -> Reloading:
        """Has all of them read the configuration again; none takes it over if it has a mistake."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a core is told that serves together with others.

    Attributes:
        group: The name that they use directories under, which nobody else has.
        grpc_port: The port that all of them share.
        token: The administrator's token that was made for this run; None if one is configured.
        state_url: The state that they share.
        local: Where the embedded models answer, if they run.
        siblings: The processes.
    """

    group: str
    grpc_port: int
    token: str | None
    state_url: str
    local: LocalEndpoint | None
    siblings: Siblings
