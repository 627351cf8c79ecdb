"""Opens the key store that the configuration names. Above is `gateway.app`."""

from pathlib import Path

from gateway.keystore.driver import Driver
from gateway.keystore.postgresql import PostgresqlDriver
from gateway.keystore.sqlite import SqliteDriver

_FILE = "keys.db"


def make_driver(url: str, directory: Path) -> Driver:
    """Returns what runs the transactions of the store at a URL.

    Args:
        url: `sqlite://`, `sqlite:///PATH` or `postgresql://...`.
        directory: Where the file is if the URL does not say.

    Raises:
        ConfigError: The client of the database is not installed.
    """
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite://")
        return SqliteDriver(Path(path) if path else directory / _FILE)
    return PostgresqlDriver(url)
