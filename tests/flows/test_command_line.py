"""The command `twinspan` from a user's chair: what it prints, how it ends, and what it says to a mistake."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.flows.commands import Process, configure, run, started
from tests.flows.running import TOKEN
from tests.flows.upstream import MODEL, Upstream, chunk, says, streams, whole

HELLO = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


async def rest_url(process: Process) -> str:
    return (await process.until(r"^REST\s+(http\S+)/v1"))[1]


def secrets(directory: Path) -> dict[str, str]:
    return {"TWINSPAN_SECRETS_DIR": str(directory / "secrets")}


async def test_serve_says_where_it_is_and_what_it_offers(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    async with started("serve", cwd=tmp_path, **secrets(tmp_path)) as process:
        url = await rest_url(process)
        await process.until(r"^gRPC\s+127\.0\.0\.1:\d+")
        assert (await process.until(r"^models\s+(.*)"))[1] == MODEL
        line = (await process.until(r"^curl"))[0]
        assert line
        assert not any(TOKEN in shown for shown in process.out)
        async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
            assert (await client.get("/healthz")).text == "OK"
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            assert "[DONE]" in (await client.post("/v1/chat/completions", json=HELLO)).text
            assert (
                'twinspan_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0'
                in (await client.get("/metrics")).text
            )
            stats = (await client.get("/statsz")).json()
            assert stats["models"][0]["model"] == MODEL


async def test_without_a_configuration_it_runs_the_embedded_model_on_this_machine_alone(tmp_path: Path) -> None:
    async with started("serve", cwd=tmp_path, PORT="0", GRPC_PORT="0") as process:
        url = await rest_url(process)
        assert url.startswith("http://127.0.0.1:")
        models = (await process.until(r"^models\s+(.*)"))[1]
        token = (await process.until(r"^token\s+(ts-\S+)"))[1]
        assert models == "smollm2-135m-instruct, all-minilm-l6-v2"
        shown = (await process.until(r"^curl .*"))[0]
        assert token in shown
        curl = await asyncio.create_subprocess_shell(shown.replace("curl -N", "curl -sN"), stdout=asyncio.subprocess.PIPE)
        out, _ = await curl.communicate()
        assert out.startswith(b'data: {"id":"chatcmpl')
        assert out.endswith(b"data: [DONE]\n\n")


async def test_a_signal_lets_streams_end_before_the_process_does(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    more = asyncio.Event()
    upstream.plays(streams(chunk({"content": "Hi"}), more, chunk({}, finish_reason="stop"), "[DONE]"))
    async with started("serve", cwd=tmp_path, **secrets(tmp_path)) as process:
        url = await rest_url(process)
        async with (
            httpx.AsyncClient(base_url=url, headers=HEADERS) as client,
            client.stream("POST", "/v1/chat/completions", json=HELLO) as response,
        ):
            lines = response.aiter_lines()
            assert "Hi" in await anext(lines)
            process.process.send_signal(signal.SIGTERM)
            await process.complains("Stopping")
            more.set()
            assert [line async for line in lines][-2:] == ["data: [DONE]", ""]
        assert await process.ended() == 0


async def test_a_second_ctrl_c_ends_it_at_once(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    upstream.plays(streams(chunk({"content": "Hi"}), asyncio.Event()))
    async with started("serve", cwd=tmp_path, **secrets(tmp_path)) as process:
        url = await rest_url(process)
        async with (
            httpx.AsyncClient(base_url=url, headers=HEADERS) as client,
            client.stream("POST", "/v1/chat/completions", json=HELLO) as response,
        ):
            assert "Hi" in await anext(response.aiter_lines())
            process.process.send_signal(signal.SIGINT)
            await process.complains("Press Ctrl-C again")
            process.process.send_signal(signal.SIGINT)
            assert await process.ended() == 130


async def test_the_configuration_is_reloaded_on_sighup_and_a_bad_one_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    path = configure(tmp_path, upstream.base_url)
    async with started("serve", "--config", str(path), cwd=tmp_path, **secrets(tmp_path)) as process:
        url = await rest_url(process)
        async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
            configure(tmp_path, upstream.base_url, agents={"smart": {"models": [MODEL]}})
            process.process.send_signal(signal.SIGHUP)
            await process.complains("was reloaded")
            assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["smart", MODEL]
            configure(tmp_path, upstream.base_url, agents={"smart": {"modles": [MODEL]}})
            process.process.send_signal(signal.SIGHUP)
            assert "Did you mean 'models'?" in await process.complains("was not reloaded")
            assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["smart", MODEL]


async def test_core_and_bridge_run_in_processes_of_their_own(upstream: Upstream, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        metrics = unused.getsockname()[1]
    server = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "metrics_addr": f"127.0.0.1:{metrics}"}
    configure(tmp_path, upstream.base_url, server=server)
    async with started("core", cwd=tmp_path, **secrets(tmp_path)) as core:
        target = (await core.until(r"^gRPC\s+(\S+)"))[1]
        await core.until(r"^metrics\s+http")
        listen = {"PORT": "0", "HOST": "127.0.0.1"}
        async with started("bridge", "--core", target, cwd=tmp_path / "secrets", **listen) as bridge:
            async with httpx.AsyncClient(base_url=await rest_url(bridge), headers=HEADERS) as client:
                assert (await client.get("/readyz")).json() == {"status": "ready"}
                answer = await client.post("/v1/chat/completions", json=HELLO)
                assert answer.headers["X-Twinspan-Provider"] == "acme"
                assert answer.text.endswith("data: [DONE]\n\n")
                assert (await client.get("/v1/models/nobody")).status_code == 404
            async with httpx.AsyncClient() as client:
                text = (await client.get(f"http://127.0.0.1:{metrics}/metrics")).text
            assert 'twinspan_grpc_requests_total{code="OK",method="Stream",service="twinspan.v1.ChatService"} 1.0' in text


async def test_a_bridge_without_a_core_is_not_ready_and_says_so(tmp_path: Path) -> None:
    async with (
        started("bridge", "--core", "127.0.0.1:1", cwd=tmp_path, PORT="0", HOST="127.0.0.1") as bridge,
        httpx.AsyncClient(base_url=await rest_url(bridge), headers=HEADERS) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 503


@pytest.mark.parametrize("surface", ["--url", "--grpc"])
async def test_chat_streams_an_answer_over_either_surface(upstream: Upstream, tmp_path: Path, surface: str) -> None:
    info = {MODEL: {"context_window": 128_000, "input_cost_per_1m": 0.5, "output_cost_per_1m": 1.5}}
    acme = {"base_url": upstream.base_url, "models": [MODEL], "model_info": info}
    configure(tmp_path, upstream.base_url, providers={"acme": acme})
    upstream.plays(says("Hel", "lo!"))
    async with started("serve", cwd=tmp_path, **secrets(tmp_path)) as process:
        url = await rest_url(process)
        target = (await process.until(r"^gRPC\s+(\S+)"))[1]
        where = [surface, url if surface == "--url" else target]
        answer = await run("chat", *where, "Say", "hello.", cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
        assert (answer.code, answer.out) == (0, "Hello!\n"), answer.err
        assert f"acme/{MODEL}" in answer.err
        assert "9 tokens in, 3 out" in answer.err
        talk = await run("chat", *where, "-q", "--max-tokens", "7", cwd=tmp_path, stdin="One\nTwo\n", TWINSPAN_TOKEN=TOKEN)
        assert talk.out.replace("> ", "").split() == ["Hello!", "Hello!"]
        assert [message["content"] for message in upstream.requests[-1].body["messages"]] == ["One", "Hello!", "Two"]
        assert upstream.requests[-1].body["max_tokens"] == 7
        models = await run("models", *where, cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
        assert models.out.splitlines()[0].split() == [
            "model",
            "by",
            "context",
            "output",
            "in",
            "$/1M",
            "cached",
            "out",
            "$/1M",
            "can",
        ]
        assert models.out.splitlines()[1].split()[:7] == [MODEL, "acme", "128,000", "-", "0.5", "-", "1.5"]
        assert "tool_calls" in models.out
        assert (await run("models", "-q", *where, cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)).out == f"{MODEL}\n"
        wrong = await run("chat", *where, "--model", "nobody", "Hi", cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
        assert wrong.code == 1
        assert "nobody" in wrong.err
        denied = await run("models", *where, "--token", "ts-a-wrong-key-of-the-tests", cwd=tmp_path)
        assert denied.code == 1
        assert "credential" in denied.err
        assert "Traceback" not in wrong.err + denied.err


async def test_chat_says_that_no_gateway_answers(tmp_path: Path) -> None:
    for where in (["--url", "http://127.0.0.1:1"], ["--grpc", "127.0.0.1:1"]):
        failed = await run("chat", *where, "Hi", cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
        assert failed.code == 1
        assert "twinspan serve" in failed.err
        assert "Traceback" not in failed.err
    assert (await run("chat", "Hi", cwd=tmp_path)).code == 2


async def test_validate_reports_every_mistake_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "twinspan.yaml"
    path.write_text("server:\n  lisen_addr: ':1'\nagents:\n  a:\n    models: [{provder: x}]\nproviders:\n  mine: {}\n")
    failed = await run("validate", cwd=tmp_path)
    assert failed.code == 2
    assert "server.lisen_addr" in failed.err
    assert "Did you mean 'listen_addr'?" in failed.err
    assert "agents.a.models[0].provder" in failed.err
    path.write_text("providers:\n  mine: {}\nagents:\n  a:\n    models: [{provider: his}]\n")
    failed = await run("validate", cwd=tmp_path)
    assert "providers.mine" in failed.err
    assert "agents.a.models[0].provider" in failed.err
    path.write_text("server:\n  keepalive_seconds: 5\n")
    fine = await run("validate", cwd=tmp_path)
    assert (fine.code, fine.err) == (0, "")
    assert "twinspan.yaml" in fine.out


async def test_validate_can_ask_the_providers(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(whole({"data": [{"id": MODEL}]}), whole({"error": {"message": "No."}}, 401))
    configure(tmp_path, upstream.base_url)
    fine = await run("validate", "--probe", cwd=tmp_path, **secrets(tmp_path))
    assert (fine.code, "acme: ok" in fine.out, "lists 1 models" in fine.out) == (0, True, True)
    assert upstream.requests[0].path == "/v1/models"
    refused = await run("validate", "--probe", cwd=tmp_path, **secrets(tmp_path))
    assert refused.code == 1
    assert "does not accept the credential" in refused.out
    configure(tmp_path, "http://127.0.0.1:1/v1")
    unreachable = await run("validate", "--probe", cwd=tmp_path, **secrets(tmp_path))
    assert unreachable.code == 1
    assert "Traceback" not in unreachable.err


async def test_an_address_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for key in ("listen_addr", "grpc_addr"):
            configure(
                tmp_path, "http://127.0.0.1:1/v1", server={"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", key: address}
            )
            failed = await run("serve", cwd=tmp_path, **secrets(tmp_path))
            assert failed.code == 1
            assert address in failed.err
            assert f"server.{key}" in failed.err
            assert "Traceback" not in failed.err


async def test_small_commands(tmp_path: Path) -> None:
    assert (await run("--version", cwd=tmp_path)).out.startswith("twinspan 0.")
    keys = {(await run("keygen", cwd=tmp_path)).out for _ in range(2)}
    assert len(keys) == 2
    assert all(key.startswith("ts-") and len(key) > 40 for key in keys)
    schema = json.loads((await run("config", "schema", cwd=tmp_path)).out)
    assert "providers" in schema["properties"]
    for command in ([], ["serve"], ["core"], ["bridge"], ["validate"], ["keygen"], ["chat"], ["models"], ["demo"]):
        assert "usage: twinspan" in (await run(*command, "--help", cwd=tmp_path)).out
    assert (await run("sreve", cwd=tmp_path)).code == 2
    missing = await run("serve", "--config", "nowhere.yaml", cwd=tmp_path)
    assert missing.code == 2
    assert "nowhere.yaml" in missing.err


async def test_the_demo_shows_an_answer_and_a_trace_for_each_surface(tmp_path: Path) -> None:
    shown = await run("demo", cwd=tmp_path)
    assert shown.code == 0, shown.err
    rest, _, grpc = shown.out.partition("=== gRPC")
    assert "=== REST" in rest
    for part in (rest, grpc):
        assert "first token after" in part
        assert "cost $0.00" in part
        assert "attempt local" in part
    assert "POST /v1/chat/completions" in rest


@pytest.mark.parametrize("worker", [0, 1])
async def test_no_worker_of_the_embedded_models_outlives_a_killed_gateway(tmp_path: Path, worker: int) -> None:
    async with started("serve", cwd=tmp_path, PORT="0", GRPC_PORT="0") as process:
        await rest_url(process)
        pid = process.process.pid
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert len(children) == 2
        handle = os.pidfd_open(children[worker])
        process.process.kill()
        gone = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(handle, gone.set_result, None)
        try:
            async with asyncio.timeout(5):
                await gone
        finally:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)
