"""The command line: what there is to call, and how a call ends."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import uvloop

from bridge.cli.problem import Problem

_INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


_MOST_WORKERS = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 for success, 1 for a failure, 2 for a mistake in what was asked."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    # gRPC reads these when it is imported: no notes about ordinary events in the log, and none about the embedded model's process.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        return int(parsed.run(parsed) or 0)
    except Problem as problem:
        print(f"twinspan: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="twinspan", description="An AI gateway with two surfaces over one core: gRPC, and REST with server-sent events."
    )
    parser.add_argument("--version", action="version", version=f"twinspan {version('twinspan')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("serve", help="run the core and the bridge together")
    _add_config(command)
    command.add_argument("--workers", type=_workers, metavar="N", help="serve with so many processes (default: server.workers)")
    command.set_defaults(run=_running("serve", "run_serve"))

    command = commands.add_parser("core", help="run the core alone: gRPC")
    _add_config(command)
    command.set_defaults(run=_running("serve", "run_core"))

    command = commands.add_parser("bridge", help="run the bridge alone: REST and SSE, over a core elsewhere")
    _add_config(command)
    command.add_argument("--core", required=True, metavar="TARGET", help="the core, such as dns:///core:50051")
    command.add_argument("--core-ca", metavar="FILE", help="speak TLS to the core, and trust this PEM file")
    command.add_argument("--core-cert", metavar="FILE", help="the bridge's own certificate, for a core that asks for one")
    command.add_argument("--core-key", metavar="FILE", help="the key of that certificate")
    command.set_defaults(run=_running("serve", "run_bridge"))

    command = commands.add_parser("validate", help="report every mistake in the configuration, and serve nothing")
    _add_config(command)
    command.add_argument("--probe", action="store_true", help="also ask each provider for its models")
    command.set_defaults(run=_running("configuration", "run_validate"))

    command = commands.add_parser("keygen", help="print a new token for an API key")
    command.set_defaults(run=_running("configuration", "run_keygen"))

    command = commands.add_parser("chat", help="talk to a model through a running gateway")
    command.add_argument("prompt", nargs="*", help="what to ask; without it, a conversation begins")
    command.add_argument("--model", help="the model or agent (default: the first that the gateway lists)")
    command.add_argument("--max-tokens", type=int, metavar="N", help="cut an answer off after N tokens")
    command.add_argument("-q", "--quiet", action="store_true", help="show the answer alone")
    _add_connection(command)
    command.set_defaults(run=_running("chat", "run_chat"))

    command = commands.add_parser("models", help="list what a running gateway offers")
    command.add_argument("-q", "--quiet", action="store_true", help="print the names alone")
    _add_connection(command)
    command.set_defaults(run=_running("chat", "run_models"))

    command = commands.add_parser("explain", help="show what would come of a chat: targets, cost and limits; nothing is sent")
    command.add_argument("prompt", nargs="+", help="what would be asked")
    command.add_argument("--model", required=True, help="the model or agent")
    command.add_argument("--json", action="store_true", help="show it as JSON")
    _add_connection(command)
    command.set_defaults(run=_running("explain", "run_explain"))

    command = commands.add_parser("stats", help="show what a running gateway has counted")
    command.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")
    command.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="how often, with --watch (default: 1)")
    command.add_argument("--json", action="store_true", help="show it as JSON, one line a look")
    _add_connection(command)
    command.set_defaults(run=_running("stats", "run_stats"))

    command = commands.add_parser("reload", help="have a running gateway read its configuration again")
    _add_connection(command)
    command.set_defaults(run=_running("reload", "run_reload"))

    command = commands.add_parser("profile", help="profile a running gateway, for `go tool pprof`")
    command.add_argument(
        "kind", choices=("profile", "heap", "allocs", "goroutine", "threadcreate", "block", "mutex"), help="what to profile"
    )
    command.add_argument("--seconds", type=float, metavar="N", help="over how long (default: 30 for profile, else 5 or 10)")
    command.add_argument("-o", "--output", metavar="FILE", help="where to write it; - for standard output (default: KIND.pb.gz)")
    command.add_argument("--text", action="store_true", help="show it as text")
    _add_connection(command)
    command.set_defaults(run=_running("profile", "run_profile"))

    command = commands.add_parser("batches", help="about batches of a running gateway")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser("watch", help="show a batch's progress until it ends")
    action.add_argument("id", metavar="ID", help="the batch")
    action.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="how often to look (default: 1)")
    _add_connection(action)
    action.set_defaults(run=_running("batches", "run_watch"))

    _add_keys(commands.add_parser("keys", help="make, list and change keys of a running gateway"))
    _add_teams(commands.add_parser("teams", help="make and list teams of a running gateway"))

    command = commands.add_parser("demo", help="show one answer over each surface, with its trace")
    command.set_defaults(run=_running("demo", "run_demo"))

    command = commands.add_parser("config", help="about configuration files")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser("schema", help="print the JSON Schema of configuration files, for editors")
    action.set_defaults(run=_running("configuration", "run_schema"))
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        metavar="PATH",
        help="the configuration: a file, or a directory (default: $TWINSPAN_CONFIG_FILE, ./twinspan.yaml)",
    )


def _add_keys(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser("create", help="make a key, and show its token this once")
    action.add_argument("name", metavar="NAME", help="what to call it")
    action.add_argument("-q", "--quiet", action="store_true", help="print the token alone")
    _add_rights(action)
    _add_limits(action)
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_create_key"))
    action = actions.add_parser("list", help="list all keys")
    action.add_argument("--json", action="store_true", help="show them as JSON, one a line")
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_list_keys"))
    action = actions.add_parser("update", help="change a key")
    action.add_argument("key", metavar="KEY", help="its name or id")
    _add_rights(action)
    action.add_argument("--enable", dest="enabled", action="store_true", default=None, help="have it hold again")
    action.add_argument(
        "--clear", action="append", default=[], metavar="FIELD", help="set a field to none, such as rpm or expires_at"
    )
    action.add_argument("--json", action="store_true", help="show it as JSON")
    _add_limits(action)
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_update_key"))
    action = actions.add_parser("rotate", help="give a key a new token, and show it this once")
    action.add_argument("key", metavar="KEY", help="its name or id")
    action.add_argument(
        "--overlap", type=_count, default=0, metavar="SECONDS", help="how long the old one stays valid (default: 0)"
    )
    action.add_argument("-q", "--quiet", action="store_true", help="print the token alone")
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_rotate_key"))
    action = actions.add_parser("revoke", help="end a key for good")
    action.add_argument("key", metavar="KEY", help="its name or id")
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_revoke_key"))


def _add_teams(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    action = actions.add_parser("create", help="make a team")
    action.add_argument("name", metavar="NAME", help="what to call it")
    action.add_argument("--json", action="store_true", help="show it as JSON")
    _add_limits(action)
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_create_team"))
    action = actions.add_parser("list", help="list all teams")
    action.add_argument("--json", action="store_true", help="show them as JSON, one a line")
    _add_connection(action)
    action.set_defaults(run=_running("keys", "run_list_teams"))


def _add_rights(action: argparse.ArgumentParser) -> None:
    action.add_argument("--role", dest="roles", action="append", metavar="ROLE", help="admin, user or read-only; may be repeated")
    action.add_argument(
        "--agent", dest="allowed_agents", action="append", metavar="NAME", help="a model or agent it may name; may be repeated"
    )
    action.add_argument(
        "--endpoint", dest="allowed_endpoints", action="append", metavar="ROUTE", help="'METHOD /path' it may call; may be repeated"
    )
    action.add_argument(
        "--expires", dest="expires_at", metavar="DATE", help="when it ends, such as 2027-01-31 or 2027-01-31T12:00 (UTC)"
    )
    action.add_argument("--disable", dest="enabled", action="store_false", default=None, help="have it not hold for now")
    action.add_argument("--team", metavar="NAME", help="the team that it belongs to")


def _count(text: str) -> int:
    """Returns a number that is not negative and that 63 bits hold."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError(text)
    return number


def _add_limits(action: argparse.ArgumentParser) -> None:
    action.add_argument("--rpm", type=_count, metavar="N", help="most requests a minute")
    action.add_argument("--tpm", type=_count, metavar="N", help="most tokens a minute")
    action.add_argument("--max-parallel", type=_count, metavar="N", help="most requests at a time")
    action.add_argument("--budget", dest="budget_usd", type=float, metavar="USD", help="most to be spent in a period")
    action.add_argument("--period", dest="budget_period", choices=("day", "week", "month", "total"), help="that period")


def _workers(text: str) -> int:
    if not 1 <= (count := int(text)) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_MOST_WORKERS}")
    return count


def _add_connection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", help="the bridge's address (default: $TWINSPAN_URL, else http://127.0.0.1:8080)")
    command.add_argument("--grpc", metavar="HOST:PORT", help="talk gRPC to a core at this address instead")
    command.add_argument("--token", help="the credential (default: $TWINSPAN_TOKEN)")


def _running(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Returns a runner of a command, on uvloop. Its module is imported only then: help and mistakes are answered at once."""

    def run(arguments: argparse.Namespace) -> int:
        command = getattr(import_module(f"bridge.cli.{module}"), function)
        coroutine: Coroutine[Any, Any, int | None] = command(arguments)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(coroutine) or 0

    return run
