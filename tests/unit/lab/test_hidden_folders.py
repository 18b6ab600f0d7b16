"""Which folders of the machine are nobody's business in pods."""

from __future__ import annotations

from pathlib import Path

import pytest

from podplane.lab import folder
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


def test_where_links_to_homes_lead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As /home is a link to /var/home where all but /var and /etc can't be changed."""
    (tmp_path / "var" / "home" / "me").mkdir(parents=True)
    (tmp_path / "home").symlink_to("var/home")
    (tmp_path / "system").symlink_to("/usr")
    monkeypatch.setattr(folder, "HOMES", (f"{tmp_path}/home", f"{tmp_path}/system"))
    monkeypatch.setenv("HOME", f"{tmp_path}/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    homes = f"{tmp_path}/var/home"
    assert hidden_folders(shows_home=False) == (homes, f"{homes}/me", "/state/podplane")
    assert hidden_folders(shows_home=True) == ("/state/podplane",)
