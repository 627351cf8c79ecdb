"""`twinspan validate`, `keygen` and `config schema`: what helps to write a configuration."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.cli.problem import Problem
from gateway import app
from gateway.app import Configuration


@contextmanager
def explained() -> Iterator[None]:
    """Turns the mistakes of a configuration into a problem of the user's.

    Raises:
        Problem: The configuration has mistakes.
    """
    try:
        yield
    except app.ConfigError as error:
        raise Problem(str(error), 2) from error


def load(path: str | None) -> Configuration:
    """Returns the configuration at `path`, or where it is looked for without one.

    Raises:
        Problem: It has mistakes.
    """
    with explained():
        return app.load_configuration(path)


async def run_validate(arguments: argparse.Namespace) -> None:
    """Reports every mistake in the configuration."""
    configuration = load(arguments.config)
    with explained():
        app.validate(configuration)
    snapshot = configuration.current
    for warning in snapshot.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"The configuration is valid ({', '.join(map(str, snapshot.sources)) or 'no file: defaults'}).")
    if arguments.probe:
        await _probe(configuration)


async def _probe(configuration: Configuration) -> None:
    findings = await app.probe_providers(configuration)
    for finding in findings:
        print(f"{finding.provider}: {'ok' if finding.ok else 'FAILED'}. {finding.message}")
    failed = [finding.provider for finding in findings if not finding.ok]
    if failed:
        raise Problem(f"{len(failed)} of {len(findings)} providers did not answer as they should: {', '.join(failed)}.")


async def run_keygen(_arguments: argparse.Namespace) -> None:
    """Prints a new token."""
    print(app.generate_token())


async def run_schema(_arguments: argparse.Namespace) -> None:
    """Prints the JSON Schema of configuration files."""
    print(json.dumps(app.json_schema(), indent=2))
