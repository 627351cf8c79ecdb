"""Batches and the machine: a process that is killed, or told to stop, in the middle of one."""

import asyncio
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openai import AsyncOpenAI, PermissionDeniedError

from tests.flows.commands import Process, configure, started
from tests.flows.running import TOKEN
from tests.flows.test_batches import line, written
from tests.flows.upstream import Request, Upstream, hangs, says

LINES = int(os.environ.get("TWINSPAN_TEST_BATCH_LINES", "2000"))
"""How many lines a large batch has."""
SLOTS = 8
ANYWHERE = {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0"}


@asynccontextmanager
async def gateway(directory: Path) -> AsyncIterator[tuple[Process, AsyncOpenAI]]:
    async with started("serve", cwd=directory, TWINSPAN_SECRETS_DIR=str(directory / "secrets")) as process:
        url = (await process.until(r"^REST\s+(http\S+)/v1"))[1]
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0, timeout=30) as sdk:
            yield process, sdk


class Asked:
    """A provider's script that counts how often each line was asked, and answers at once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total = 0
        self._more = asyncio.Condition()

    async def __call__(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        async with self._more:
            self.counts[request.body["messages"][0]["content"].replace("line ", "r")] += 1
            self.total += 1
            self._more.notify_all()
        return await says("done")(http, request)

    async def reached(self, total: int) -> None:
        async with asyncio.timeout(120), self._more:
            await self._more.wait_for(lambda: self.total >= total)


async def finished(sdk: AsyncOpenAI, id_: str, status: str = "completed") -> Any:
    async with asyncio.timeout(240):
        while (batch := await sdk.batches.retrieve(id_)).status != status:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.05)
    return batch


def durable(directory: Path) -> set[str]:
    """Returns the lines whose answers are on disk."""
    database = sqlite3.connect(directory / "files/batches/batches.db")
    try:
        return {json.loads(row[0])["custom_id"] for row in database.execute("SELECT output FROM results")}
    finally:
        database.close()


async def begin(sdk: AsyncOpenAI, lines: int) -> str:
    file = await sdk.files.create(file=("lines.jsonl", written(*(line(number) for number in range(lines)))), purpose="batch")
    return (await sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")).id


@pytest.mark.timeout(600)
async def test_a_killed_gateway_goes_on_without_running_an_answered_line_again(upstream: Upstream, tmp_path: Path) -> None:
    asked = Asked()
    upstream.plays(asked)
    configure(tmp_path, upstream.base_url, files={"dir": "files"}, batches={"max_concurrency": SLOTS})
    async with gateway(tmp_path) as (process, sdk):
        id_ = await begin(sdk, LINES)
        await asked.reached(LINES // 4)
        process.process.send_signal(signal.SIGKILL)
        await process.ended()
    again = 0
    for part in (2, 3):
        answered, before = durable(tmp_path), asked.counts.copy()
        assert len(answered) >= asked.total - again - SLOTS
        async with gateway(tmp_path) as (process, sdk):
            if part == 2:
                await asked.reached(LINES // 2 + again)
                process.process.send_signal(signal.SIGKILL)
                await process.ended()
            else:
                batch = await finished(sdk, id_)
                output = (await sdk.files.content(batch.output_file_id)).text.splitlines()
        assert [name for name in answered if asked.counts[name] != before[name]] == []
        again = asked.total - len(asked.counts)
    assert batch.request_counts.model_dump() == {"total": LINES, "completed": LINES, "failed": 0}
    assert [json.loads(item)["custom_id"] for item in output] == [f"r{number}" for number in range(LINES)]
    assert max(asked.counts.values()) <= 3
    assert again <= 2 * SLOTS  # those under way at the two kills, of which nobody can know whether they were answered
    print(f"{LINES} lines, {again} of them asked again")  # noqa: T201 (with -s, the figure)


async def test_a_gateway_that_is_told_to_stop_lets_lines_end_and_runs_none_twice(upstream: Upstream, tmp_path: Path) -> None:
    asked, stopping = Asked(), asyncio.Event()

    async def waits(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        if asked.total >= 10:
            await stopping.wait()
        return await asked(http, request)

    upstream.plays(waits)
    configure(tmp_path, upstream.base_url, files={"dir": "files"}, batches={"max_concurrency": SLOTS})
    async with gateway(tmp_path) as (process, sdk):
        id_ = await begin(sdk, 60)
        await upstream.arrived(10 + SLOTS)
        process.process.send_signal(signal.SIGTERM)
        await process.complains("Stopping")
        stopping.set()
        assert await process.ended() == 0
    assert len(upstream.requests) < 60
    async with gateway(tmp_path) as (_, sdk):
        batch = await finished(sdk, id_)
        assert batch.request_counts.completed == 60
    assert set(asked.counts.values()) == {1}


async def test_batches_run_in_a_core_without_a_bridge(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url, files={"dir": "files"})
    secrets = {"TWINSPAN_SECRETS_DIR": str(tmp_path / "secrets")}
    async with started("core", cwd=tmp_path, **secrets) as core:
        target = (await core.until(r"^gRPC\s+(\S+)"))[1]
        async with started("bridge", "--core", target, cwd=tmp_path, **secrets) as bridge:
            url = (await bridge.until(r"^REST\s+(http\S+)/v1"))[1]
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0, timeout=10) as sdk:
                batch = await finished(sdk, await begin(sdk, 5))
                assert len((await sdk.files.content(batch.output_file_id)).text.splitlines()) == 5


async def test_a_crash_while_the_files_are_written_makes_no_file_twice(upstream: Upstream, tmp_path: Path) -> None:
    configure(tmp_path, upstream.base_url, files={"dir": "files"})
    async with gateway(tmp_path) as (_, sdk):
        before = await finished(sdk, await begin(sdk, 3))
    # As a crash leaves it that comes after the file has its place, and before the batch has its end.
    database = sqlite3.connect(tmp_path / "files/batches/batches.db")
    with database:
        database.execute("UPDATE batches SET status = 'finalizing', output_file_id = NULL, completed_at = NULL")
    database.close()
    async with gateway(tmp_path) as (_, sdk):
        after = await finished(sdk, before.id)
        assert after.output_file_id == before.output_file_id
        assert after.error_file_id is None
        assert len([file async for file in sdk.files.list(purpose="batch_output")]) == 1
    assert len(upstream.requests) == 3


async def test_a_batch_that_expired_while_nobody_ran_it_says_so(upstream: Upstream, tmp_path: Path) -> None:
    upstream.plays(hangs())
    configure(tmp_path, upstream.base_url, files={"dir": "files"}, server={**ANYWHERE, "drain_seconds": 0})
    async with gateway(tmp_path) as (_, sdk):
        id_ = await begin(sdk, 3)
        await upstream.arrived()
    database = sqlite3.connect(tmp_path / "files/batches/batches.db")
    with database:
        database.execute("UPDATE batches SET expires_at = 1")
    database.close()
    asked = len(upstream.requests)
    async with gateway(tmp_path) as (_, sdk):
        batch = await finished(sdk, id_, "expired")
        assert len((await sdk.files.content(batch.error_file_id)).text.splitlines()) == 3
    assert len(upstream.requests) == asked


async def test_a_key_that_is_taken_away_answers_no_further_line(upstream: Upstream, tmp_path: Path) -> None:
    first, free = asyncio.Event(), asyncio.Event()

    async def waits(http: web.BaseRequest, request: Request) -> web.StreamResponse:
        first.set()
        await free.wait()
        return await says("done")(http, request)

    upstream.plays(waits)
    token = "ts-the-key-of-ann-0001"
    configure(tmp_path, upstream.base_url, files={"dir": "files"}, batches={"max_concurrency": 1})
    keys = tmp_path / "secrets/keys.json"
    keys.write_text(json.dumps({"api_keys": [{"name": "ann", "token": token}]}))
    keys.chmod(0o600)
    async with gateway(tmp_path) as (process, admin):
        async with AsyncOpenAI(base_url=admin.base_url, api_key=token, max_retries=0, timeout=10) as ann:
            id_ = await begin(ann, 3)
            await first.wait()
            keys.write_text(json.dumps({"api_keys": [{"name": "ann", "token": token, "enabled": False}]}))
            process.process.send_signal(signal.SIGHUP)
            while True:
                try:
                    await ann.models.list()
                except PermissionDeniedError:
                    break
            free.set()
        batch = await finished(admin, id_)
        assert batch.request_counts.model_dump() == {"total": 3, "completed": 1, "failed": 2}
        failures = [json.loads(item) for item in (await admin.files.content(batch.error_file_id)).text.splitlines()]
        assert {item["response"]["status_code"] for item in failures} == {403}
    assert len(upstream.requests) == 1
