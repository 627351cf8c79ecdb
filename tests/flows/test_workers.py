"""Several workers as one gateway: one pair of ports, one set of counts and limits, one store of files and batches."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from twinspan.v1 import admin_pb2, chat_pb2, content_pb2
from twinspan.v1.admin_pb2_grpc import AdminServiceStub
from twinspan.v1.chat_pb2_grpc import ChatServiceStub

from bridge import errors
from tests.flows.commands import configure, run, started
from tests.flows.running import TOKEN
from tests.flows.test_batches import begin, ended, line, read, written
from tests.flows.together import METADATA, Together, command, descendants, gone, scratch, sockets, together
from tests.flows.upstream import MODEL, Request, Upstream, chunk, says, streams
from tests.waiting import until

HELLO: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
CHAT = chat_pb2.ChatRequest(model=MODEL, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, text="Hello")])
SLOW = "ts-a-key-with-few-requests"
POOR = "ts-a-key-with-a-small-budget"
_PACE_SECONDS = 0.02  # which leaves the processors to the workers that start
ANYWHERE = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0"}


async def ask(gateway: Together, token: str = TOKEN) -> str:
    """Asks over gRPC, on a connection of its own, and returns the kind of the error, or that it is fine."""
    async with gateway.channel() as channel:
        try:
            metadata = (("authorization", f"Bearer {token}"),)
            await ChatServiceStub(channel).Complete(chat_pb2.CompleteRequest(chat=CHAT), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return errors.of_rpc(error).kind_name
    return "fine"


async def said(stream: Any) -> str:
    """Reads a stream to its end, and returns its text."""
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def counts(gateway: Together) -> dict[str, float]:
    """Returns the sum of each metric over its labels, as one scrape shows it."""
    async with gateway.rest() as rest:
        text = (await rest.get("/metrics")).text
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


async def test_two_workers_serve_both_surfaces_and_count_as_one(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(says("Hi."))
    async with together(tmp_path, upstream.base_url) as gateway, gateway.sdk() as sdk, gateway.rest() as rest:
        before = {pid: sockets(pid) for pid in gateway.workers()}
        assert len(before) == 2
        await asyncio.gather(*(sdk.chat.completions.create(**HELLO) for _ in range(30)))
        assert await asyncio.gather(*(ask(gateway) for _ in range(10))) == ["fine"] * 10
        for _ in range(5):
            stats = (await rest.get("/statsz")).json()
            assert (stats["totals"]["requests"], stats["totals"]["input_tokens"]) == (40, 360)
            assert stats["providers"][0]["state"] == "healthy"
        async with gateway.channel() as channel:
            stub: Any = AdminServiceStub(channel)
            assert (await stub.GetStats(admin_pb2.GetStatsRequest())).totals.requests == 40
            async for look in stub.WatchStats(admin_pb2.WatchStatsRequest(), metadata=METADATA):
                assert look.stats.totals.output_tokens == 120
                break
        for _ in range(5):
            seen = await counts(gateway)
            assert (seen["twinspan_upstream_requests_total"], seen["twinspan_upstream_request_duration_seconds_count"]) == (40, 40)
            assert (seen["twinspan_workers"], seen["twinspan_worker_silences_total"]) == (2, 0)
        text = (await rest.get("/metrics")).text
        assert 'twinspan_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 30.0' in text
        one = Path(f"/proc/{min(before)}/statm").read_text().split()[1]
        assert seen["process_resident_memory_bytes"] > 1.5 * int(one) * os.sysconf("SC_PAGE_SIZE")

        go_on = asyncio.Event()
        upstream.plays(streams(chunk({"content": "Hi"}), go_on, chunk({}, finish_reason="stop"), "[DONE]"))
        open_streams = [await sdk.chat.completions.create(**HELLO, stream=True) for _ in range(20)]
        assert all(sockets(pid) > count for pid, count in before.items())  # each of the two has some of them
        assert (await counts(gateway))["twinspan_inflight_requests"] >= 20
        assert (await rest.get("/statsz")).json()["inflight_requests"] == 20
        go_on.set()
        for stream in open_streams:
            assert await said(stream) == "Hi"


async def test_limits_and_budgets_are_exact_over_four_workers_that_were_given_no_store(upstream: Upstream, tmp_path: Path) -> None:
    """The mock's answers have 3 tokens, so that one costs $0.003; the budget is for ten of them, also after a restart."""
    upstream.plays(says("Hello."))
    keys = [{"name": "slow", "token": SLOW, "rpm": 100}, {"name": "poor", "token": POOR, "budget_usd": 0.03}]
    sections = {
        "api_keys": keys,
        "providers": {
            "acme": {
                "base_url": upstream.base_url,
                "api_key": "upstream-secret-key",
                "models": [MODEL],
                "model_info": {MODEL: {"input_cost_per_1m": 0, "output_cost_per_1m": 1000}},
            }
        },
        "files": {"dir": str(tmp_path / "files")},
    }
    async with together(tmp_path, upstream.base_url, workers=4, **sections) as gateway, gateway.rest(SLOW) as rest:
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = [rest.post("/v1/chat/completions", json=HELLO) for _ in range(500)]
        answers, kinds = await asyncio.gather(asyncio.gather(*asked), asyncio.gather(*(ask(gateway, SLOW) for _ in range(40))))
        passed = sum(answer.status_code == 200 for answer in answers) + kinds.count("fine")
        assert 100 <= passed <= 100 + int((loop.time() - began) * 100 / 60) + 1
        assert {answer.status_code for answer in answers} | set(kinds) <= {200, 429, "fine", "rate_limited"}
        seen = await counts(gateway)
        assert (seen["twinspan_ratelimit_rejected_total"], seen["twinspan_store_failures_total"]) == (540 - passed, 0)
        assert await paid_for(gateway) == 10
    async with together(tmp_path, upstream.base_url, workers=4, **sections) as gateway:
        assert await paid_for(gateway) == 0


async def paid_for(gateway: Together) -> int:
    """Asks with a small budget, many times at once, and returns how many requests it was enough for."""
    async with gateway.rest(POOR) as rest:
        body = {**HELLO, "max_completion_tokens": 3}
        answers = await asyncio.gather(*(rest.post("/v1/chat/completions", json=body) for _ in range(60)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    return sum(answer.status_code == 200 for answer in answers)


async def test_files_and_batches_are_there_at_all_workers_and_each_line_runs_once(upstream: Upstream, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    halfway = asyncio.Event()

    async def counting(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        asked[request.body["messages"][0]["content"]] += 1
        if len(asked) >= 60:
            halfway.set()
        return await says("done")(http, request)

    upstream.plays(counting)
    sections: Any = {"files": {"dir": "files"}, "batches": {"max_concurrency": 4}}
    async with together(tmp_path, upstream.base_url, **sections) as gateway, gateway.sdk() as sdk:
        file = await sdk.files.create(file=("a.txt", b"content"), purpose="user_data")
        for _ in range(10):
            assert (await sdk.files.content(file.id)).content == b"content"
        uploads = [sdk.files.create(file=("b.txt", b"content"), purpose="user_data") for _ in range(10)]
        made = {file.id, *(found.id for found in await asyncio.gather(*uploads))}
        for _ in range(4):
            assert {found.id async for found in sdk.files.list()} == made
        responses = [await sdk.responses.create(model=MODEL, input="Hello") for _ in range(3)]
        for response in responses * 3:
            assert (await sdk.responses.retrieve(response.id)).output_text == "done"
        asked.clear()
        batches = await asyncio.gather(*(begin(sdk, written(*(line(10 * one + n) for n in range(10)))) for one in range(3)))
        for batch in batches:
            assert len(await read(sdk, (await ended(sdk, batch)).output_file_id)) == 10
        assert set(asked.values()) == {1}
        assert len(asked) == 30

        upstream.plays(streams(asyncio.Event()))
        batches = [await begin(sdk, written(line(1))) for _ in range(3)]
        for batch in batches:
            await sdk.batches.cancel(batch.id)
        for batch in batches:
            assert (await ended(sdk, batch)).status == "cancelled"
        upstream.plays(counting)

        # The one that runs them is killed in the middle of the next: the other one goes on.
        batch = await begin(sdk, written(*(line(1000 + n) for n in range(200))))
        await halfway.wait()
        runners = [pid for pid in gateway.workers() if _holds(pid, tmp_path / "files/batches/runner")]
        assert len(runners) == 1
        os.kill(runners[0], signal.SIGKILL)
        await gone(set(runners))
        file_id = await _output(gateway, batch.id)
        async with gateway.sdk() as again:
            assert len(await read(again, file_id)) == 200
        repeated = sum(asked.values()) - len(asked)
        assert repeated <= 4  # those under way when it was killed


async def test_a_killed_worker_is_replaced_and_no_count_falls(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(says("Hi."))
    async with together(tmp_path, upstream.base_url) as gateway:
        assert await asyncio.gather(*(ask(gateway) for _ in range(20))) == ["fine"] * 20
        before = await counts(gateway)
        workers = gateway.workers()
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        await gone({victim})
        after = await _counts_again(gateway)
        falling = [
            name for name, value in before.items() if name.endswith(("_total", "_count", "_sum", "_bucket")) and after[name] < value
        ]
        assert falling == []
        assert after["twinspan_upstream_requests_total"] == 20
        await until(lambda: len(gateway.workers()) == 2, seconds=10)
        async with asyncio.timeout(15):
            while (await _counts_again(gateway))["twinspan_workers"] != 2:
                continue
        assert gateway.workers() - workers
        assert await asyncio.gather(*(ask(gateway) for _ in range(20))) == ["fine"] * 20
        seen = await counts(gateway)
        assert (seen["twinspan_upstream_requests_total"], seen["twinspan_worker_restarts_total"]) == (40, 1)


async def test_a_reload_reaches_all_workers_by_signal_by_rpc_and_by_command(upstream: Upstream, tmp_path: Path) -> None:
    async with together(tmp_path, upstream.base_url) as gateway, gateway.rest() as rest:

        async def models() -> set[str]:
            lists = await asyncio.gather(*(rest.get("/v1/models") for _ in range(12)))
            return {",".join(model["id"] for model in answer.json()["data"]) for answer in lists}

        configure(tmp_path, upstream.base_url, agents={"smart": {"models": [MODEL]}})
        gateway.process.process.send_signal(signal.SIGHUP)
        for _ in range(2):
            await gateway.process.complains("was reloaded")
        assert await models() == {f"smart,{MODEL}"}

        configure(tmp_path, upstream.base_url, agents={"smart": {"modles": [MODEL]}, "other": {"models": ["nobody"]}})
        gateway.process.process.send_signal(signal.SIGHUP)
        assert "Did you mean 'models'?" in await gateway.process.complains("was not reloaded")
        refused = await rest.post("/v1/admin/reload", json={})
        assert (refused.status_code, refused.json()["error_kind"]) == (400, "invalid_request")
        assert "Did you mean 'models'?" in refused.json()["error"]["message"]
        assert await models() == {f"smart,{MODEL}"}

        configure(tmp_path, upstream.base_url, agents={"wise": {"models": [MODEL]}})
        done = (await rest.post("/v1/admin/reload", json={})).json()
        assert (done["processes"], len(done["sources"])) == (2, 2)
        assert await models() == {f"wise,{MODEL}"}
        configure(tmp_path, upstream.base_url)
        said = await run("reload", "--grpc", gateway.target, cwd=tmp_path, TWINSPAN_TOKEN=TOKEN)
        assert (said.code, "reloaded by 2 processes" in said.out) == (0, True)
        assert await models() == {MODEL}


async def test_workers_are_replaced_one_after_the_other_and_no_request_is_lost(upstream: Upstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()
    upstream.plays(streams(chunk({"content": "Hi"}), go_on, chunk({}, finish_reason="stop"), "[DONE]"), says("Hi."))
    server = {**ANYWHERE, "drain_seconds": 1}
    async with together(tmp_path, upstream.base_url, server=server) as gateway, gateway.sdk() as sdk:
        old = gateway.workers()
        stream = await sdk.chat.completions.create(**HELLO, stream=True)
        done = asyncio.Event()
        answered: Counter[str] = Counter()

        async def on_new_connections() -> None:
            while not done.is_set():
                await sdk.chat.completions.create(**HELLO)
                answered["new"] += 1
                await asyncio.sleep(_PACE_SECONDS)

        async def on_kept_connections() -> None:
            async with httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10) as rest:
                while not done.is_set():
                    assert (await rest.post("/v1/chat/completions", json=HELLO)).status_code == 200
                    answered["kept"] += 1
                    await asyncio.sleep(_PACE_SECONDS)

        async def over_one_channel() -> None:
            async with gateway.channel() as channel:
                stub = ChatServiceStub(channel)
                while not done.is_set():
                    await stub.Complete(chat_pb2.CompleteRequest(chat=CHAT), metadata=METADATA, timeout=10)
                    answered["channel"] += 1
                    await asyncio.sleep(_PACE_SECONDS)

        async def over_new_channels() -> None:
            while not done.is_set():
                assert await ask(gateway) == "fine"
                answered["channels"] += 1
                await asyncio.sleep(_PACE_SECONDS)

        async with asyncio.TaskGroup() as group:
            for asking in (on_new_connections, on_kept_connections, over_one_channel, over_new_channels):
                group.create_task(asking())
            gateway.process.process.send_signal(signal.SIGUSR2)
            await gateway.process.complains("were replaced")
            go_on.set()
            assert await said(stream) == "Hi"
            await gone(old)
            done.set()
        assert len(gateway.workers()) == 2
        assert min(answered[name] for name in ("new", "kept", "channel", "channels")) > 5
        assert (await counts(gateway))["twinspan_upstream_requests_total"] == answered.total() + 1


@pytest.mark.parametrize("again", [False, True])
async def test_ctrl_c_lets_requests_end_and_a_second_one_does_not(upstream: Upstream, tmp_path: Path, again: bool) -> None:
    go_on = asyncio.Event()
    upstream.plays(streams(chunk({"content": "Hi"}), go_on, chunk({}, finish_reason="stop"), "[DONE]"))
    async with together(tmp_path, upstream.base_url) as gateway, gateway.sdk() as sdk:
        family = descendants(gateway.pid)
        assert len(family) == 3  # two workers, and the store of their state
        stream = await sdk.chat.completions.create(**HELLO, stream=True)
        gateway.process.process.send_signal(signal.SIGINT)
        await gateway.process.complains("Press Ctrl-C again")
        if again:
            gateway.process.process.send_signal(signal.SIGINT)
            assert await gateway.process.ended() == 130
        else:
            go_on.set()
            assert await said(stream) == "Hi"
            assert await gateway.process.ended() == 0
        await gone(family)
        assert list(gateway.scratch.iterdir()) == []


async def test_workers_end_when_their_supervisor_is_killed(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    with scratch() as place:
        async with started("serve", "--workers", "2", cwd=tmp_path, TMPDIR=str(place)) as process:
            await process.until(r"^curl")
            family = descendants(process.process.pid)
            assert len(family) == 3
            process.process.send_signal(signal.SIGKILL)
            await gone(family)
        (left,) = place.iterdir()
        left.rmdir()  # it is empty


async def test_a_taken_port_is_told_once_also_if_other_workers_share_it(upstream: Upstream, tmp_path: Path) -> None:
    async with together(tmp_path, upstream.base_url) as gateway:

        async def second(name: str, **server: str) -> None:
            (tmp_path / name).mkdir()
            configure(tmp_path / name, upstream.base_url, server={**ANYWHERE, **server})
            with scratch() as place:
                told = await run("serve", "--workers", "2", cwd=tmp_path / name, TMPDIR=str(place))
            assert (told.code, told.out) == (1, "")
            assert told.err.startswith("twinspan: Cannot listen on 127.0.0.1:")
            assert told.err.count("Cannot listen") == 1

        rest = gateway.url.removeprefix("http://")
        await asyncio.gather(second("rest", listen_addr=rest), second("grpc", grpc_addr=gateway.target))


async def test_what_keeps_workers_from_starting_is_told_and_leaves_nothing(upstream: Upstream, tmp_path: Path) -> None:
    """What the supervisor cannot see, but each worker does: here, files for TLS that are none."""
    (tmp_path / "none.pem").write_text("nothing")
    tls = {"cert": "none.pem", "key": "none.pem"}
    configure(tmp_path, upstream.base_url, server={**ANYWHERE, "tls": tls})
    with scratch() as place:
        said = await run("serve", "--workers", "2", cwd=tmp_path, TMPDIR=str(place))
    assert said.code != 0
    assert "none.pem" in said.err.splitlines()[-1]


async def test_workers_that_crash_at_their_start_again_and_again_are_given_up(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    crash = "import os, sys\nif 'bridge.cli.workers.worker' in sys.orig_argv: os._exit(7)\n"
    (tmp_path / "sitecustomize.py").write_text(crash)
    with scratch() as place:
        told = await run("serve", "--workers", "2", cwd=tmp_path, TMPDIR=str(place), PYTHONPATH=str(tmp_path))
    assert (told.code, told.out) == (1, "")
    assert "again and again; the last one ended with code 7." in told.err.splitlines()[-1]


async def test_workers_that_are_told_to_stop_while_they_start_leave_nothing(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url)
    with scratch() as place:
        async with started("serve", "--workers", "2", cwd=tmp_path, TMPDIR=str(place)) as process:
            await until(lambda: len(descendants(process.process.pid)) == 3, seconds=20)
            family = descendants(process.process.pid)
            process.process.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
        await gone(family)


async def test_workers_share_one_embedded_model_and_one_new_token(tmp_path: Path) -> None:
    with scratch() as place:
        async with started("serve", "--workers", "2", cwd=tmp_path, PORT="0", GRPC_PORT="0", TMPDIR=str(place)) as process:
            url = (await process.until(r"^REST\s+(http\S+)/v1"))[1]
            target = (await process.until(r"^gRPC\s+(\S+)"))[1]
            token = (await process.until(r"^token\s+(ts-\S+)"))[1]
            family = [command(pid) for pid in descendants(process.process.pid)]
            assert sum("gateway.local.worker" in line for line in family) == 1
            assert not any(token in line for line in family)
            gateway = Together(process, url, target, place)
            async with gateway.rest(token) as rest:
                asked = {**HELLO, "model": "smollm2-135m-instruct", "max_completion_tokens": 3, "stream": False}
                answers = await asyncio.gather(*(rest.post("/v1/chat/completions", json=asked) for _ in range(8)))
                assert {answer.status_code for answer in answers} == {200}
                assert (await rest.get("/statsz")).json()["totals"]["requests"] == 8


async def _counts_again(gateway: Together) -> dict[str, float]:
    """Returns the counts, also in the moment in which a worker has died and its connections with it."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await counts(gateway)
            except httpx.TransportError:
                continue


async def _output(gateway: Together, id_: str) -> str:
    async with gateway.rest() as rest, asyncio.timeout(20):
        while True:
            try:
                batch: dict[str, Any] = (await rest.get(f"/v1/batches/{id_}")).json()
            except httpx.TransportError:
                continue
            if batch["status"] == "completed":
                return str(batch["output_file_id"])
            await asyncio.sleep(0.02)


def _holds(pid: int, path: Path) -> bool:
    return any(str(path) in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
