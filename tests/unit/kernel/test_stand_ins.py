"""Files that pods find in place of those that only root may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.kernel import stand_ins


def test_passwords_are_locked_and_nothing_else_is_told() -> None:
    assert list(stand_ins.locked("root:x:0:0:root:/root:/bin/sh\n\nwww-data:hash:33:33::/:\n", ":*:::::::")) == [
        "root:*:::::::\n",
        "www-data:*:::::::\n",
    ]


def test_those_that_the_machine_has_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, place = tmp_path / "machine", tmp_path / "place"
    for folder in (machine / "cache/partial", machine / "etc", place):
        folder.mkdir(parents=True)
    (machine / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (machine / "etc/shadow").write_text("root:secret:1:2:3:4:::\n")
    monkeypatch.setattr(stand_ins, "PASSWORDS", {f"{machine}/etc/shadow": (f"{machine}/passwd", ":*:::::::")})
    monkeypatch.setattr(stand_ins, "EMPTY_FILES", (f"{machine}/etc/lock",))
    monkeypatch.setattr(stand_ins, "EMPTY_FOLDERS", (f"{machine}/cache/partial",))
    before = os.umask(0)
    try:
        stand_ins.write(str(place), os.getuid())
    finally:
        os.umask(before)
    shadow = Path(f"{place}{machine}/etc/shadow")
    assert shadow.read_text() == "root:*:::::::\n"
    assert shadow.stat().st_mode & 0o777 == 0o644
    assert not Path(f"{place}{machine}/etc/lock").exists(), "the machine has none"
    assert os.listdir(f"{place}{machine}/cache/partial") == []
    made = [one for one in Path(f"{place}{machine}/etc/shadow").parents if one.is_relative_to(place) and one != place]
    assert {one.stat().st_mode & 0o777 for one in made} == {0o755}
