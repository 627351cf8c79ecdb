import asyncio
import json
import signal
import sys
from asyncio import subprocess
from pathlib import Path

import pytest

from bench import child, proc, processes
from bench.__main__ import main

RUNNER = [sys.executable, "-m", "bench", "--no-gateway", "--workload", "W1"]


async def test_a_run_measures_direct_and_floor_and_another_gateway(tmp_path: Path) -> None:
    figures, mock_port = tmp_path / "figures.json", child.free_port()
    # A second floor stands for it. It is up before its upstream is, as a gateway that was set up by hand.
    async with processes.child("bench.floor", "--upstream", f"http://127.0.0.1:{mock_port}") as other:
        options = ["--url", f"other=http://127.0.0.1:{other.facts['port']}/v1", "--mock-port", str(mock_port)]
        options += ["--rounds", "1", "--seconds", "0.2", "--json", str(figures)]
        running = await asyncio.create_subprocess_exec(*RUNNER, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        table, progress = await running.communicate()

    assert running.returncode == 0
    assert b"W1 small chat, 32 open, round 1 of 1: floor" in progress
    assert b"| W1 small chat, 32 open, a request | other |" in table
    rows = json.loads(figures.read_text())["rows"]
    assert [(row["connections"], row["target"]) for row in rows] == [
        (connections, target) for connections in (1, 32) for target in ("direct", "floor", "other")
    ]
    assert all(row["units_per_second"] > 0 and row["failures"] == {} for row in rows)


async def test_a_run_that_is_told_to_end_leaves_no_process_behind() -> None:
    running = await asyncio.create_subprocess_exec(*RUNNER, stderr=subprocess.PIPE)
    assert running.stderr is not None
    async with asyncio.timeout(30):
        await running.stderr.readline()
    family = proc.family(running.pid)
    assert len(family) == 5

    running.send_signal(signal.SIGTERM)

    async with asyncio.timeout(30):
        assert await running.wait() == 130
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--url", "other"], "--url: 'other' is not NAME=VALUE"),
        (["--url", "other=http://example.com:80"], "--url other: give http://127.0.0.1:PORT"),
        (["--url", "floor=http://127.0.0.1:1"], "--url: the name 'floor' is taken"),
        (["--url", "other=http://127.0.0.1:1"], "--url other: no process that can be seen listens on port 1"),
        (["--url", "other=http://127.0.0.1:1", "--pid", "other=4194305"], "--pid other: there is no process 4194305"),
        (["--token", "other=secret"], "--token: there is no --url other=..."),
        (["--rounds", "0"], "argument --rounds: invalid"),
        (["--seconds", "-1"], "argument --seconds: invalid"),
        (["--workload", "W9"], "argument --workload: invalid choice: 'W9'"),
    ],
)
def test_wrong_options_are_explained(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)

    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
