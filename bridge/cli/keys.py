"""`twinspan keys` and `twinspan teams`: keys and teams of a running gateway, over either surface."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from twinspan.v1 import keys_pb2

from bridge.cli.administrator import Administrator, administrator
from bridge.cli.problem import Problem

_PAGE = 500
_LIMITS = ("rpm", "tpm", "max_parallel", "budget_usd", "budget_period")
_GIVEN = ("roles", "allowed_agents", "allowed_endpoints", "expires_at", "enabled", "team", *_LIMITS)
_KEY_HEADINGS = ("name", "id", "roles", "team", "state", "expires", "limits")
_TEAM_HEADINGS = ("name", "from", "limits")

Answer = Mapping[str, Any]


async def run_create_key(arguments: argparse.Namespace) -> None:
    """Makes a key and shows its token."""
    request = keys_pb2.CreateKeyRequest(name=arguments.name, **_given(arguments))
    async with administrator(arguments) as asked:
        _show_token(await asked.ask("CreateKey", request), quiet=arguments.quiet)


async def run_list_keys(arguments: argparse.Namespace) -> None:
    """Lists keys."""
    async with administrator(arguments) as asked:
        keys = [key async for key in _all(asked, "ListKeys", keys_pb2.ListKeysRequest, "keys")]
    _show(arguments, keys, _KEY_HEADINGS, map(_key_row, keys))


async def run_update_key(arguments: argparse.Namespace) -> None:
    """Changes a key."""
    given = _given(arguments)
    both = sorted(given.keys() & set(arguments.clear))
    if both:
        raise Problem(f"{both[0]} cannot be both given and cleared.", 2)
    if not given and not arguments.clear:
        raise Problem("Say what is to change: twinspan keys update --help", 2)
    mask = FieldMask(paths=[*given, *arguments.clear])
    request = keys_pb2.UpdateKeyRequest(id=arguments.key, update_mask=mask, **given)
    async with administrator(arguments) as asked:
        answer = await asked.ask("UpdateKey", request)
    _show(arguments, [answer["key"]], _KEY_HEADINGS, [_key_row(answer["key"])])


async def run_rotate_key(arguments: argparse.Namespace) -> None:
    """Gives a key a new token and shows it."""
    request = keys_pb2.RotateKeyRequest(id=arguments.key, overlap_seconds=arguments.overlap)
    async with administrator(arguments) as asked:
        _show_token(await asked.ask("RotateKey", request), quiet=arguments.quiet)


async def run_revoke_key(arguments: argparse.Namespace) -> None:
    """Ends a key for good."""
    async with administrator(arguments) as asked:
        answer = await asked.ask("RevokeKey", keys_pb2.RevokeKeyRequest(id=arguments.key))
    print(f"{answer['key']['name']} is revoked.")


async def run_create_team(arguments: argparse.Namespace) -> None:
    """Makes a team."""
    request = keys_pb2.CreateTeamRequest(name=arguments.name, **_given(arguments, _LIMITS))
    async with administrator(arguments) as asked:
        answer = await asked.ask("CreateTeam", request)
    _show(arguments, [answer["team"]], _TEAM_HEADINGS, [_team_row(answer["team"])])


async def run_list_teams(arguments: argparse.Namespace) -> None:
    """Lists teams."""
    async with administrator(arguments) as asked:
        teams = [team async for team in _all(asked, "ListTeams", keys_pb2.ListTeamsRequest, "teams")]
    _show(arguments, teams, _TEAM_HEADINGS, map(_team_row, teams))


async def _all(asked: Administrator, method: str, request: Any, what: str) -> Any:
    """Gives the entries of all pages."""
    token = ""
    while True:
        answer = await asked.ask(method, request(page_size=_PAGE, page_token=token))
        for entry in answer[what]:
            yield entry
        if not (token := answer["next_page_token"]):
            return


def _given(arguments: argparse.Namespace, names: Sequence[str] = _GIVEN) -> dict[str, Any]:
    """Returns the fields that a command was given."""
    given = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    if "expires_at" in given:
        given["expires_at"] = _seconds(given["expires_at"])
    return given


def _seconds(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(f"--expires must be a date such as 2027-01-31, or one with a time: '{text}' is neither.", 2) from None
    return int((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp())


def _show_token(answer: Answer, *, quiet: bool) -> None:
    if quiet:
        print(answer["token"])
    else:
        print(f"key    {answer['key']['name']} ({answer['key']['id']})\ntoken  {answer['token']}   (it is shown this once)")


def _show(arguments: argparse.Namespace, entries: Sequence[Answer], headings: tuple[str, ...], rows: Any) -> None:
    if arguments.json:
        for entry in entries:
            print(json.dumps(entry))
        return
    for line in _table([headings, *rows]):
        print(line)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _key_row(key: Answer) -> tuple[str, ...]:
    state = "revoked" if "revoked_at" in key else "enabled" if key["enabled"] else "disabled"
    expires = datetime.fromtimestamp(key["expires_at"], UTC).strftime("%Y-%m-%d %H:%M") if "expires_at" in key else "-"
    return key["name"], key["id"] or key["source"], ", ".join(key["roles"]), key["team"] or "-", state, expires, _limits(key)


def _team_row(team: Answer) -> tuple[str, ...]:
    return team["name"], team["source"], _limits(team)


def _limits(entry: Answer) -> str:
    said = [f"{entry[name]} {name}" for name in ("rpm", "tpm", "max_parallel") if name in entry]
    if "budget_usd" in entry:
        said.append(f"${entry['budget_usd']:g} {entry['budget_period']}")
    return ", ".join(said) or "-"
