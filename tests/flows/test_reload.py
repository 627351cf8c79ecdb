"""Reading the configuration again, over every surface of one process; tests/flows/test_workers.py has it with several."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from twinspan.v1 import admin_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub

from bridge import errors
from bridge.cli.serve import gateway
from bridge.transcoding import as_json
from gateway.app import Configuration
from tests.flows.commands import configure, run
from tests.flows.running import TOKEN, Running, Spans, kept_log
from tests.flows.upstream import MODEL, Upstream

USER = "ts-user-of-the-tests-12"
WAYS = ["rest", "network", "inprocess"]


@pytest.fixture
async def twinspan(upstream: Upstream, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway whose configuration is in files."""
    write(tmp_path, upstream)
    variables = {"TWINSPAN_SECRETS_DIR": str(tmp_path / "secrets")}
    configured = Configuration.of_files(str(tmp_path / "twinspan.yaml"), variables)
    with kept_log() as log:
        async with (
            gateway(configured) as started,
            httpx.AsyncClient(base_url=started.bridge.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5) as rest,
            grpc.aio.insecure_channel(started.core.grpc_url) as network,
        ):
            yield Running(started, rest, network, Spans(), log)


def write(directory: Path, upstream: Upstream, **sections: Any) -> None:
    configure(directory, upstream.base_url, api_keys=[{"name": "user", "token": USER}], **sections).chmod(0o600)


async def reload(twinspan: Running, way: str, token: str = TOKEN) -> dict[str, Any]:
    """Returns what came of it: the answer, or the error's kind and message."""
    authorization = f"Bearer {token}"
    if way == "rest":
        answer = await twinspan.rest.post("/v1/admin/reload", json={}, headers={"Authorization": authorization})
        body: dict[str, Any] = answer.json()
        return {"kind": body["error_kind"], "message": body["error"]["message"]} if "error" in body else body
    stub: Any = AdminServiceStub(getattr(twinspan, way))
    try:
        return as_json(await stub.ReloadConfig(admin_pb2.ReloadConfigRequest(), metadata=(("authorization", authorization),)))
    except grpc.aio.AioRpcError as error:
        failure = errors.of_rpc(error)
        return {"kind": failure.kind_name, "message": failure.message}


async def models(twinspan: Running) -> list[str]:
    return [model["id"] for model in (await twinspan.rest.get("/v1/models")).json()["data"]]


@pytest.mark.parametrize("way", WAYS)
async def test_an_administrator_has_the_configuration_read_again(
    twinspan: Running, upstream: Upstream, tmp_path: Path, way: str
) -> None:
    assert await models(twinspan) == [MODEL]
    write(tmp_path, upstream, agents={"smart": {"models": [MODEL]}}, telemetry={"log_requests": True})
    done = await reload(twinspan, way)
    assert [Path(source).name for source in done["sources"]] == ["twinspan.yaml", "token.json"]
    assert done["processes"] == 1
    assert ["telemetry.log_requests" in warning for warning in done["warnings"]] == [True]
    assert await models(twinspan) == ["smart", MODEL]


@pytest.mark.parametrize("way", WAYS)
async def test_a_configuration_with_mistakes_is_told_of_all_of_them_and_the_old_one_goes_on(
    twinspan: Running, upstream: Upstream, tmp_path: Path, way: str
) -> None:
    write(tmp_path, upstream, agents={"smart": {"modles": [MODEL]}}, governance={"upstream_timeout_seconds": -1})
    refused = await reload(twinspan, way)
    assert refused["kind"] == "invalid_request"
    assert "Did you mean 'models'?" in refused["message"]
    assert "governance.upstream_timeout_seconds" in refused["message"]
    assert await models(twinspan) == [MODEL]


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_but_an_administrator_may(twinspan: Running, way: str) -> None:
    assert (await reload(twinspan, way, USER))["kind"] == "permission_denied"
    assert (await reload(twinspan, way, "ts-nobody-of-the-tests-12"))["kind"] == "auth_failed"


async def test_the_command_says_what_came_of_it(twinspan: Running, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    said = await run("reload", "--url", twinspan.url, "--token", TOKEN, cwd=tmp_path / "elsewhere")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("The configuration was reloaded (")
    write(tmp_path, upstream, agents={"smart": {"modles": [MODEL]}})
    for where in (("--url", twinspan.url), ("--grpc", twinspan.target)):
        said = await run("reload", *where, "--token", TOKEN, cwd=tmp_path / "elsewhere")
        assert (said.code, said.out) == (1, "")
        assert "Did you mean 'models'?" in said.err
