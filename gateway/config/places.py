"""Where the gateway keeps what outlives it, if its configuration does not say."""

from collections.abc import Mapping
from pathlib import Path


def state_directory(environment: Mapping[str, str]) -> Path:
    """Returns the directory for what outlives the gateway: systemd's, or the user's.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = environment.get("HOME")
    state = environment.get("XDG_STATE_HOME") or (Path(home, ".local/state") if home else "/var/lib")
    return Path(state, "twinspan")
