"""Which folders of the machine are nobody's business in pods."""

from __future__ import annotations

import pytest

from podplane.lab.folder import hidden_folders


@pytest.mark.parametrize(
    ("home", "shows_home", "hidden"),
    [
        ("/data/me", False, ("/data/me", "/data/me/state/podplane")),
        ("/data/me", True, ("/data/me/state/podplane",)),
        ("/", False, ("/state/podplane",)),
        ("/var", False, ("/var/state/podplane",)),
        ("/usr/games", False, ("/usr/games/state/podplane",)),
    ],
)
def test_home_and_the_labs_folders(
    monkeypatch: pytest.MonkeyPatch, home: str, shows_home: bool, hidden: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_STATE_HOME", f"{home.rstrip('/')}/state")
    assert hidden_folders(shows_home=shows_home) == hidden
