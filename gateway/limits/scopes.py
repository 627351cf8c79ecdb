"""Whose limits a request must meet: its key's, those of the key's team, and those of the agent that it asks. Pure."""

from collections.abc import Sequence
from functools import cached_property

from msgspec import Struct

from gateway.access.keys import UNLIMITED, Allowance, Principal
from gateway.routing.catalogue import Agent

KEY, TEAM, AGENT, HOST = "key", "team", "agent", "host"


class Scope(Struct, frozen=True, dict=True):
    """Somebody who has limits.

    Attributes:
        kind: `key`, `team`, `agent` or `host`.
        name: Whose they are.
        allowance: What they may ask for.
    """

    kind: str
    name: str
    allowance: Allowance

    @cached_property
    def id(self) -> str:
        """What tells them apart from all others."""
        return f"{self.kind}:{self.name}"


def scopes_of(principal: Principal | None, agent: Agent | None) -> Sequence[Scope]:
    """Returns whose limits a request must meet, those without any left out."""
    scopes = []
    if principal is not None:
        if principal.allowance is not UNLIMITED:
            scopes.append(Scope(KEY, principal.name, principal.allowance))
        team = principal.team
        if team is not None and team.allowance is not UNLIMITED:
            scopes.append(Scope(TEAM, team.name, team.allowance))
    if agent is not None and agent.allowance is not UNLIMITED:
        scopes.append(Scope(AGENT, agent.name, agent.allowance))
    return scopes
