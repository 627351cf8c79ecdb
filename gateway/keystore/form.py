"""What administrators may say of keys and teams: the rules of the configuration, for what comes over the API. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.keys import CLIENT_TOKEN, Allowance
from gateway.config.problems import describe, path
from gateway.config.section import BudgetPeriod, Dollars, EndpointPattern, Name, Role, Section
from gateway.errors import GatewayError
from gateway.keystore.records import StoredKey, StoredTeam

_LARGEST = 2**63 - 1
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, after which no calendar goes."""

_Count = Annotated[int, Field(ge=0, le=_LARGEST)]


class TeamForm(BaseModel):
    """What can be said of a team."""

    model_config = Section.model_config

    name: Name
    rpm: _Count | None = None
    tpm: _Count | None = None
    max_parallel: _Count | None = None
    budget_usd: Dollars | None = None
    budget_period: BudgetPeriod = "total"

    @property
    def allowance(self) -> Allowance:
        """What may be asked for."""
        return Allowance(self.rpm, self.tpm, self.max_parallel, self.budget_usd, self.budget_period)


class KeyForm(TeamForm):
    """What can be said of a key."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ("user",)
    allowed_agents: tuple[str, ...] = ()
    allowed_endpoints: tuple[EndpointPattern, ...] = ()
    expires_at: Annotated[int, Field(ge=1, le=_LAST_SECOND)] | None = None
    enabled: bool = True
    team: Name | None = None


_F = TypeVar("_F", bound=TeamForm)


def new_key(id_: str, given: Mapping[str, Any]) -> StoredKey:
    """Returns a key of what was given of it, by field.

    Raises:
        GatewayError: A field cannot be what it is.
    """
    if given.get("name") == CLIENT_TOKEN:
        raise _invalid("name", f"cannot be '{CLIENT_TOKEN}', under which the administrator's credential acts")
    return _filled(StoredKey(id_, ""), _checked(KeyForm, given))


def changed_key(key: StoredKey, given: Mapping[str, Any]) -> StoredKey:
    """Returns a key with what was given; None stands for what a new key has.

    Raises:
        GatewayError: A field cannot be what it is.
    """
    said = {name: getattr(key, name) for name in KeyForm.model_fields if name in _KEY_FIELDS}
    said |= {"team": key.team or None, **dataclasses.asdict(key.allowance)}
    return _filled(key, _checked(KeyForm, {**said, **given}))


def new_team(given: Mapping[str, Any]) -> StoredTeam:
    """Returns a team of what was given of it, by field.

    Raises:
        GatewayError: A field cannot be what it is.
    """
    form = _checked(TeamForm, given)
    return StoredTeam(form.name, form.allowance)


def changed_team(team: StoredTeam, given: Mapping[str, Any]) -> StoredTeam:
    """Returns a team with what was given; None stands for what a new team has.

    Raises:
        GatewayError: A field cannot be what it is.
    """
    form = _checked(TeamForm, {"name": team.name, **dataclasses.asdict(team.allowance), **given})
    return dataclasses.replace(team, allowance=form.allowance)


_KEY_FIELDS = frozenset(field.name for field in dataclasses.fields(StoredKey))


def _filled(key: StoredKey, form: KeyForm) -> StoredKey:
    return dataclasses.replace(
        key,
        name=form.name,
        roles=form.roles,
        allowed_agents=form.allowed_agents,
        allowed_endpoints=form.allowed_endpoints,
        expires_at=form.expires_at,
        enabled=form.enabled,
        allowance=form.allowance,
        team=form.team or "",
    )


def _checked(form: type[_F], given: Mapping[str, Any]) -> _F:
    try:
        return form.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        place, message = describe(error, form)[0]
        raise _invalid(path(place), message.rstrip(".")) from None


def _invalid(field: str, what: str) -> GatewayError:
    return GatewayError(ErrorKind.ERROR_KIND_INVALID_REQUEST, f"'{field}' {what}.", param=field)
