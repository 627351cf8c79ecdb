"""`twinspan batches watch`, as a user runs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cli.batches import Progress, conclusion
from tests.flows.commands import Finished, run
from tests.flows.running import TOKEN, Running, running_over
from tests.flows.test_batches import begin, line, written
from tests.flows.upstream import Upstream


async def watch(twinspan: Running, cwd: Path, id_: str, surface: str) -> Finished:
    place = ["--url", twinspan.url] if surface == "rest" else ["--grpc", twinspan.target]
    return await run("batches", "watch", id_, "--interval", "0.01", *place, cwd=cwd, TWINSPAN_TOKEN=TOKEN)


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_it_shows_a_batch_to_its_end(upstream: Upstream, tmp_path: Path, surface: str) -> None:
    async with running_over(upstream, files={"dir": str(tmp_path / "files")}) as twinspan, twinspan.openai() as sdk:
        batch = await begin(sdk, written(*(line(number) for number in range(30)), line(31, body={"model": "nobody-has-this"})))
        watched = await watch(twinspan, tmp_path, batch.id, surface)
        assert (watched.code, watched.err) == (0, "")
        batch = await sdk.batches.retrieve(batch.id)
        assert watched.out.splitlines()[-3:] == [
            f"{batch.id} completed   31/31, 1 failed",
            f"output: {batch.output_file_id}",
            f"errors: {batch.error_file_id}",
        ]
        failed = await watch(twinspan, tmp_path, (await begin(sdk, b"{\n")).id, surface)
        assert failed.code == 1
        assert failed.out.splitlines()[-1] == "line 1: This line is not parseable as valid JSON. (invalid_json_line)"
        missing = await watch(twinspan, tmp_path, "batch_0", surface)
        assert missing.code == 1
        assert missing.err.startswith("twinspan: There is no batch 'batch_0'.")


def test_a_terminal_sees_a_bar_and_the_speed() -> None:
    clock: Iterator[float] = iter((0.0, 10.0, 20.0))
    progress = Progress(lambda: next(clock))
    batch = {"id": "batch_1", "status": "in_progress", "request_counts": {"total": 200, "completed": 0, "failed": 0}}
    assert progress.line(batch, 80) == f"[{'-' * 40}]   0% in_progress 0/200"
    batch["request_counts"] = {"total": 200, "completed": 90, "failed": 10}
    assert progress.line(batch, 110) == f"[{'#' * 20}{'-' * 20}]  50% in_progress 100/200, 10 failed, 10.0/s, 0:00:10 left"
    assert progress.line(batch, 30) == "in_progress 100/200, 10 faile"


def test_only_some_of_many_mistakes_are_shown() -> None:
    mistakes = [{"code": "c", "message": "Wrong.", "line": number, "param": None} for number in range(1, 13)]
    said = conclusion({"output_file_id": None, "error_file_id": None, "errors": {"data": mistakes}})
    assert (said[0], said[9:]) == ("line 1: Wrong. (c)", ["line 10: Wrong. (c)", "and 2 more"])
