"""`twinspan keys` and `twinspan teams`, as an administrator runs them."""

import json
import re
from pathlib import Path

import pytest

from tests.flows.commands import Finished, run
from tests.flows.running import TOKEN, Running, running_over
from tests.flows.upstream import Upstream

CONFIGURED = [{"name": "configured", "token": "ts-a-key-of-the-configuration"}]


class Terminal:
    """Runs commands against a gateway, over one surface."""

    def __init__(self, twinspan: Running, surface: str, directory: Path) -> None:
        self._place = ["--url", twinspan.url] if surface == "rest" else ["--grpc", twinspan.target]
        self._directory = directory

    async def __call__(self, *words: str, token: str = TOKEN) -> Finished:
        return await run(*words, *self._place, cwd=self._directory, TWINSPAN_TOKEN=token)


async def holds(twinspan: Running, token: str) -> bool:
    answer = await twinspan.rest.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code == 200


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_a_key_from_its_making_to_its_end(upstream: Upstream, tmp_path: Path, surface: str) -> None:
    async with running_over(upstream, api_keys=CONFIGURED) as twinspan:
        ask = Terminal(twinspan, surface, tmp_path)
        team = await ask("teams", "create", "research", "--rpm", "100", "--budget", "50", "--period", "month")
        assert (team.code, team.err) == (0, "")
        made = await ask(
            *(
                "keys",
                "create",
                "ann",
                "--role",
                "read-only",
                "--role",
                "user",
                "--agent",
                "model-1",
                "--endpoint",
                "GET /v1/models",
            ),
            *("--expires", "2099-01-31", "--rpm", "60", "--team", "research"),
        )
        assert (made.code, made.err) == (0, "")
        shown = re.fullmatch(r"key    ann \(key_[0-9a-f]{32}\)\ntoken  (ts-\S+)   \(it is shown this once\)\n", made.out)
        assert shown is not None
        assert await holds(twinspan, shown[1])

        listed = await ask("keys", "list")
        heading, row, configured = listed.out.splitlines()
        assert heading.split() == ["name", "id", "roles", "team", "state", "expires", "limits"]
        assert re.split(r"  +", row)[::2] == ["ann", "read-only, user", "enabled", "60 rpm"]
        assert re.split(r"  +", configured)[:2] == ["configured", "configuration"]
        teams = await ask("teams", "list")
        assert re.split(r"  +", teams.out.splitlines()[1]) == ["research", "store", "100 rpm, $50 month"]

        changed = await ask("keys", "update", "ann", "--tpm", "9", "--clear", "rpm", "--clear", "team", "--disable", "--json")
        assert json.loads(changed.out)["tpm"] == 9
        assert not {"rpm"} & json.loads(changed.out).keys()
        assert not await holds(twinspan, shown[1])
        await ask("keys", "update", "ann", "--enable")
        assert await holds(twinspan, shown[1])

        token = (await ask("keys", "rotate", "ann", "--overlap", "600", "--quiet")).out.strip()
        assert [await holds(twinspan, known) for known in (shown[1], token)] == [True, True]
        ended = await ask("keys", "revoke", "ann")
        assert (ended.code, ended.out) == (0, "ann is revoked.\n")
        assert [await holds(twinspan, known) for known in (shown[1], token)] == [False, False]
        [first, _] = [json.loads(line) for line in (await ask("keys", "list", "--json")).out.splitlines()]
        assert (first["name"], first["revoked_at"] >= first["created_at"]) == ("ann", True)


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_a_refusal_is_told_in_a_sentence(twinspan: Running, tmp_path: Path, surface: str) -> None:
    ask = Terminal(twinspan, surface, tmp_path)
    refused = await ask("keys", "revoke", "nobody")
    assert (refused.code, refused.err.startswith("twinspan: There is no key 'nobody'.")) == (1, True)
    unknown = await ask("keys", "list", token="ts-nobody-knows-this")
    assert (unknown.code, "credential" in unknown.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["create", "ann", "--expires", "tomorrow"], "--expires must be a date"),
        (["update", "ann"], "Say what is to change"),
        (["update", "ann", "--rpm", "1", "--clear", "rpm"], "rpm cannot be both"),
        (["create", "ann", "--rpm", "-1"], "--rpm"),
        (["create", "ann", "--rpm", str(2**63)], "--rpm"),
    ],
)
async def test_a_mistake_is_told_before_anything_is_asked(tmp_path: Path, words: list[str], complaint: str) -> None:
    ended = await run("keys", *words, "--url", "http://127.0.0.1:1", cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
    assert (ended.code, complaint in ended.err) == (2, True), ended.err


@pytest.mark.parametrize("place", [["--url", "http://127.0.0.1:1"], ["--grpc", "127.0.0.1:1"]])
async def test_a_gateway_that_is_not_there_is_a_problem(tmp_path: Path, place: list[str]) -> None:
    ended = await run("teams", "list", *place, cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
    assert (ended.code, "127.0.0.1:1 does not answer" in ended.err) == (1, True)
