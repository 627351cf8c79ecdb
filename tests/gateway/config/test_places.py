"""Where state is kept if the configuration does not say."""

from pathlib import Path

import pytest

from gateway.config.places import state_directory


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/twinspan:/var/lib/other", "HOME": "/users/ann"}, "/var/lib/twinspan"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/users/ann"}, "/state/twinspan"),
        ({"HOME": "/users/ann"}, "/users/ann/.local/state/twinspan"),
        ({}, "/var/lib/twinspan"),
    ],
)
def test_the_system_says_where_state_is_kept(environment: dict[str, str], expected: str) -> None:
    assert state_directory(environment) == Path(expected)
