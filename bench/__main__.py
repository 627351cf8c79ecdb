"""`python -m bench`: see docs/performance.md."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench import proc, report, runner, workloads
from bench.processes import RefusedError, StartError
from bench.runner import Plan, Target

_QUICK_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, and returns the exit code: 1 if a request failed or the run could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the gateway costs beside a proxy that does nothing.")
    names = sorted({workload.name for workload in workloads.ALL})
    parser.add_argument("--workload", action="append", choices=names, help="measure this one alone; may be repeated")
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="put another gateway on this machine beside it; may be repeated",
    )
    parser.add_argument("--token", action="append", default=[], metavar="NAME=TOKEN", help="that gateway's credential")
    parser.add_argument("--prefix", action="append", default=[], metavar="NAME=TEXT", help="what it wants before a model's name")
    parser.add_argument("--rounds", type=int, default=5, help="how often each workload is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a phase is measured (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one short round of each, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--no-gateway", action="store_true", help="leave this project's gateway out")
    given = parser.parse_args(arguments)
    plan = Plan(
        workloads=[workload for workload in workloads.ALL if not given.workload or workload.name in given.workload],
        rounds=1 if given.quick else given.rounds,
        seconds=_QUICK_SECONDS if given.quick else given.seconds,
        warmup_seconds=0.2 if given.quick else 0.5,
        others=_others(parser, given),
        gateway=not given.no_gateway,
    )
    try:
        result = asyncio.run(runner.run(plan))
    except (StartError, RefusedError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.table(result.rows))
    if result.idle_mb is not None:
        print(f"\nIdle, without the embedded model: {result.idle_mb:.0f} MB.")
    if given.json:
        command = " ".join(["python -m bench", *(sys.argv[1:] if arguments is None else arguments)])
        report.write_json(given.json, runner.facts(plan, result, command), result.rows)
    return 1 if any(entry.failures for entry in result.rows) else 0


def _others(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Target]:
    tokens, prefixes = _pairs(parser, given.token), _pairs(parser, given.prefix)
    targets = []
    for name, url in _pairs(parser, given.url).items():
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.port is None:
            parser.error(f"--url {name}: give http://127.0.0.1:PORT, with the path up to /v1 if it has another one")
        pid = proc.listener(parts.port)
        if pid is None:
            parser.error(f"--url {name}: no process of this machine that you may look into listens on port {parts.port}")
        headers = {"authorization": f"Bearer {tokens[name]}"} if name in tokens else {}
        path = f"{parts.path.rstrip('/') or '/v1'}/chat/completions"
        targets.append(Target(name, parts.port, pid, headers, path=path, prefix=prefixes.get(name, "")))
    return targets


def _pairs(parser: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            parser.error(f"'{text}' is not NAME=VALUE")
        pairs[name] = value
    return pairs


if __name__ == "__main__":
    sys.exit(main())
