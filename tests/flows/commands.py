"""The command `twinspan` as a process, as a user runs it."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.flows.running import TOKEN

TWINSPAN = Path(sys.executable).with_name("twinspan")
ROOT = Path(__file__).parents[2]
_SECONDS = 20


@dataclass
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Process:
    """A command that runs."""

    process: asyncio.subprocess.Process
    out: list[str] = field(default_factory=list)

    async def until(self, pattern: str) -> "re.Match[str]":
        """Reads standard output up to a line that matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                self.out.append(line)
                if match := re.search(pattern, line):
                    return match
        raise AssertionError(f"{pattern} is not in {self.out}, and standard error says {await self.said()}")

    async def complains(self, text: str) -> str:
        """Reads standard error up to a line that holds a text, and returns that line."""
        assert self.process.stderr is not None
        async with asyncio.timeout(_SECONDS):
            while line := (await self.process.stderr.readline()).decode():
                if text in line:
                    return line
        raise AssertionError(f"Standard error ended without: {text}")

    async def said(self) -> str:
        """Returns what is left of standard error, once it ends."""
        assert self.process.stderr is not None
        async with asyncio.timeout(_SECONDS):
            return (await self.process.stderr.read()).decode()

    async def ended(self) -> int:
        async with asyncio.timeout(_SECONDS):
            return await self.process.wait()


def environment(**variables: str) -> dict[str, str]:
    """Returns an environment in which nothing of the caller's own configures a gateway."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
    return kept | variables


async def run(*arguments: str, cwd: Path, stdin: str = "", **variables: str) -> Finished:
    """Runs a command to its end."""
    process = await asyncio.create_subprocess_exec(
        TWINSPAN,
        *arguments,
        cwd=cwd,
        env=environment(**{"XDG_STATE_HOME": str(cwd / "state"), **variables}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[Process]:
    """Starts a command, and ends it with the context if it has not ended by itself."""
    process = await asyncio.create_subprocess_exec(
        TWINSPAN,
        *arguments,
        cwd=cwd,
        env=environment(**{"XDG_STATE_HOME": str(cwd / "state"), **variables}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # what was not read of its output would warn else


def configure(directory: Path, base_url: str, **sections: Any) -> Path:
    """Writes a configuration with one provider and a secrets directory beside it, and returns its path."""
    path = directory / "twinspan.yaml"
    tree: Mapping[str, Any] = {
        "server": {"listen_addr": "127.0.0.1:0", "grpc_addr": "127.0.0.1:0", "drain_seconds": 5},
        "providers": {"acme": {"base_url": base_url, "api_key": "upstream-secret-key", "models": ["model-1"]}},
        **sections,
    }
    path.write_text(json.dumps(tree))  # JSON is YAML
    secrets = directory / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "token.json").write_text(json.dumps({"client_token": TOKEN}))
    (secrets / "token.json").chmod(0o600)
    return path
