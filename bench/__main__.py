"""`python -m bench`: see docs/performance.md."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench import child, proc, report, runner, workloads
from bench.processes import RefusedError, StartError
from bench.runner import Plan, Result, Target

_QUICK_SECONDS = 0.5
_MOST_SECONDS = 600
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, and returns the exit code: 1 if a request failed or the run could not be made."""
    parser = _parser()
    given = parser.parse_args(arguments)
    plan = Plan(
        workloads=[workload for workload in workloads.ALL if not given.workload or workload.name in given.workload],
        rounds=given.rounds or (1 if given.quick else Plan.rounds),
        seconds=given.seconds or (_QUICK_SECONDS if given.quick else Plan.seconds),
        warmup_seconds=0.2 if given.quick else Plan.warmup_seconds,
        others=_others(parser, given),
        gateway=not given.no_gateway,
        mock_port=given.mock_port,
    )
    try:
        result = asyncio.run(_run(plan))
    except (StartError, RefusedError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: stopped", file=sys.stderr)
        return _INTERRUPTED
    print(report.table(result.rows))
    print(f"\n{report.verdict(result.rows, result.idle_mb)}")
    if given.json:
        command = " ".join(["python -m bench", *(sys.argv[1:] if arguments is None else arguments)])
        report.write_json(given.json, runner.facts(plan, result, command), result.rows)
    return 1 if any(row.failed for row in result.rows) else 0


async def _run(plan: Plan) -> Result:
    running = asyncio.current_task()
    assert running is not None
    # Ctrl-C cancels the run and so ends its processes; a request to end, such as that of `timeout`, shall do so too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await runner.run(plan)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the gateway costs beside a proxy that does nothing.")
    names = sorted({workload.name for workload in workloads.ALL})
    parser.add_argument("--workload", action="append", choices=names, help="measure this one alone; may be repeated")
    parser.add_argument("--rounds", type=_count, help=f"how often each workload is measured (default: {Plan.rounds})")
    parser.add_argument("--seconds", type=_duration, help=f"how long a phase is measured (default: {Plan.seconds:g})")
    parser.add_argument("--quick", action="store_true", help="one short round of each, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--no-gateway", action="store_true", help="leave this project's gateway out")
    other = parser.add_argument_group("other gateways", "put beside it; each runs on this machine, with the mock as its upstream")
    other.add_argument("--url", action="append", default=[], metavar="NAME=URL", help="where it listens; may be repeated")
    other.add_argument("--token", action="append", default=[], metavar="NAME=TOKEN", help="the credential that it wants")
    other.add_argument(
        "--model", action="append", default=[], metavar="NAME=MODEL", help="what it calls a model, such as openai/{}"
    )
    other.add_argument("--pid", action="append", default=[], metavar="NAME=PID", help="its process, if not the one that listens")
    other.add_argument("--mock-port", type=int, default=0, metavar="PORT", help="where the mock listens (default: a free port)")
    return parser


def _others(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Target]:
    urls = _pairs(parser, "--url", given.url)
    tokens = _pairs(parser, "--token", given.token, urls)
    models = _pairs(parser, "--model", given.model, urls)
    pids = _pairs(parser, "--pid", given.pid, urls)
    targets = []
    for name, url in urls.items():
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in {child.HOST, "localhost"} or parts.port is None:
            parser.error(f"--url {name}: give http://{child.HOST}:PORT, with the path up to /v1 if it has another one")
        if name in pids and not pids[name].isdecimal():
            parser.error(f"--pid {name}: '{pids[name]}' is no process id")
        pid = int(pids[name]) if name in pids else proc.listener(parts.port)
        if pid is None:
            parser.error(f"--url {name}: no process that can be seen listens on port {parts.port}; if one does, give --pid")
        if not Path(f"/proc/{pid}").exists():
            parser.error(f"--pid {name}: there is no process {pid}")
        headers = {"authorization": f"Bearer {tokens[name]}"} if name in tokens else {}
        path = f"{parts.path.rstrip('/') or '/v1'}/chat/completions"
        targets.append(Target(name, parts.port, pid, headers, path=path, model=models.get(name, "{}")))
    return targets


def _pairs(
    parser: argparse.ArgumentParser, option: str, given: Sequence[str], known: Mapping[str, str] | None = None
) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            parser.error(f"{option}: '{text}' is not NAME=VALUE")
        if name in pairs or name in {*report.YARDSTICKS, report.GATEWAY}:
            parser.error(f"{option}: the name '{name}' is taken")
        if known is not None and name not in known:
            parser.error(f"{option}: there is no --url {name}=...")
        pairs[name] = value
    return pairs


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise ValueError
    return count


def _duration(text: str) -> float:
    if not 0 < (seconds := float(text)) <= _MOST_SECONDS:
        raise ValueError
    return seconds


if __name__ == "__main__":
    sys.exit(main())
