"""A configuration is read again without being put in force; what holds changes only when it is adopted."""

import pytest

from gateway.config.loading import ConfigError
from gateway.config.schema import AgentConfig, Config
from gateway.config.snapshot import Snapshot, SnapshotHolder
from tests.gateway.config.written import Written


def holder(written: Written, name: str = "twinspan.yaml") -> SnapshotHolder:
    return SnapshotHolder.of_files(str(written.root / name), {})


def test_the_first_snapshot_is_there_at_once(written: Written) -> None:
    written.write(twinspan_yaml="agents: {a: {models: [m], system_prompt: Be brief.}}\ntelemetry: {log_requests: true}")
    assert holder(written).current == Snapshot(
        config=Config.model_validate(
            {"agents": {"a": {"models": ["m"], "system_prompt": "Be brief."}}, "telemetry": {"log_requests": True}},
        ),
        version=1,
        warnings=("This version understands these keys but does not act on them: telemetry.log_requests.",),
        sources=(written.root / "twinspan.yaml",),
        system_prompts={"a": "Be brief."},
    )


def test_a_wrong_configuration_holds_nothing(written: Written) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        holder(written)


async def test_what_is_read_again_holds_once_it_is_adopted(written: Written) -> None:
    held = holder(written.write(twinspan_yaml="server: {drain_seconds: 1}"))
    before = held.current
    written.write(twinspan_yaml="server: {drain_seconds: 2}")
    read = await held.read()
    assert held.current is before
    assert (read.version, read.config.server.drain_seconds) == (2, 2)
    held.adopt(read)
    assert held.current is read
    assert before.config.server.drain_seconds == 1
    assert (await held.read()).version == 3


@pytest.mark.parametrize("content", ["server: {drain_seconds: x}", "[", "agents: {a: {models: [{provider: gone}]}}"])
async def test_a_mistake_leaves_what_holds_as_it_is(written: Written, content: str) -> None:
    held = holder(written.write(twinspan_yaml="server: {drain_seconds: 1}"))
    before = held.current
    written.write(twinspan_yaml=content)
    with pytest.raises(ConfigError):
        await held.read()
    assert held.current is before


async def test_files_that_a_configuration_points_to_are_read_again_too(written: Written) -> None:
    written.write(twinspan_yaml="agents: {a: {models: [m], system_prompt_file: a.txt}}", a_txt="Be brief.")
    held = holder(written)
    written.write(a_txt="Be long.")
    assert held.current.system_prompts == {"a": "Be brief."}
    assert (await held.read()).system_prompts == {"a": "Be long."}


async def test_a_configuration_in_code_comes_from_no_file_and_stays_as_it_is() -> None:
    config = Config(agents={"a": AgentConfig(models=("m",), system_prompt="Be brief.")})
    held = SnapshotHolder.of(config)
    assert held.current == Snapshot(config, version=1, warnings=(), sources=(), system_prompts={"a": "Be brief."})
    assert (await held.read()).config is config
