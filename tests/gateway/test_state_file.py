"""The small file for what should outlive the process."""

import json
import logging
import stat
from pathlib import Path

import pytest

from gateway.state_file import StateFile


async def test_what_is_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    first = StateFile(path, lambda: {"a": 1})
    first.changed()
    await first.close()
    assert await StateFile(path, dict).read() == {"a": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


async def test_many_changes_are_written_once_and_with_what_holds_then(tmp_path: Path) -> None:
    value, asked = 0, 0

    def contents() -> dict[str, int]:
        nonlocal asked
        asked += 1
        return {"value": value}

    file = StateFile(tmp_path / "state.json", contents, delay_seconds=3600)
    for value in range(10):
        file.changed()
    await file.close()
    assert (asked, json.loads((tmp_path / "state.json").read_text())) == (1, {"value": 9})


async def test_nothing_is_written_where_nothing_has_changed(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json", dict)
    assert await file.read() == {}
    await file.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_change_is_written_behind_while_the_process_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path, lambda: {"a": 1}, delay_seconds=0)
    file.changed()
    assert file._task is not None
    await file._task
    assert json.loads(path.read_text()) == {"a": 1}
    file.changed()
    await file.close()


@pytest.mark.parametrize("text", ["", "{", "[1]", "\ufeff{}"])
async def test_a_file_that_is_of_no_use_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    assert await StateFile(path, dict).read() == {}


async def test_a_directory_that_cannot_be_written_to_is_told_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    file = StateFile(tmp_path / "file" / "state.json", dict)
    file.changed()
    with caplog.at_level(logging.ERROR):
        await file.close()
    assert "cannot be written" in caplog.text
