"""The configuration that holds now, and its exchange for another one while requests are served."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway.config.loading import ConfigError, load
from gateway.config.schema import Config

__all__ = ["ConfigError", "Snapshot", "SnapshotHolder"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A configuration as it was at one time. It never changes.

    Attributes:
        config: The configuration.
        version: 1 for the first, one more for each that followed.
        warnings: What an operator should know of, a sentence each.
        sources: The files it came from; none means defaults.
        system_prompts: The instructions of agents, by agent.
    """

    config: Config
    version: int = 1
    warnings: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    system_prompts: Mapping[str, str] = field(default_factory=dict)


class SnapshotHolder:
    """Holds the configuration that is served from.

    Attributes:
        current: What holds now.
    """

    def __init__(self, read: Callable[[int], Snapshot]) -> None:
        """Reads the configuration.

        Args:
            read: Reads it, and gives it the version that it is called with.

        Raises:
            ConfigError: It has mistakes.
        """
        self._read = read
        self.current = read(1)

    @classmethod
    def of_files(cls, path: str | None, environment: Mapping[str, str]) -> Self:
        """Returns a holder of what files say.

        Args:
            path: The file or directory; None to look where the environment says.
            environment: The variables of the environment.

        Raises:
            ConfigError: It has mistakes.
        """

        def read(version: int) -> Snapshot:
            loaded = load(path, environment)
            return Snapshot(loaded.config, version, loaded.warnings, loaded.sources, loaded.system_prompts)

        return cls(read)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Returns a holder of a configuration that comes from no file; reading it again gives the same."""
        prompts = {name: agent.system_prompt for name, agent in config.agents.items()}
        return cls(lambda version: Snapshot(config, version, system_prompts=prompts))

    async def read(self) -> Snapshot:
        """Reads the configuration again, without putting it in force.

        Raises:
            ConfigError: It has mistakes.
        """
        return await asyncio.to_thread(self._read, self.current.version + 1)

    def adopt(self, snapshot: Snapshot) -> None:
        """Puts a configuration in force."""
        self.current = snapshot
