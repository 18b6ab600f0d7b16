"""A pod that reads what its user reads: homes, the lab's folder and what others keep on the machine are empty."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kernel.rootfs import HIDDEN_FOLDERS, OWN, Root
from tests.e2e.conftest import Podplane, nothing_left
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained

PLACE = "/var/tmp"
"""A folder that pods see."""


@pytest.mark.kernel
@contained
async def test_folders_that_are_hidden_are_empty(machine: Machine) -> None:
    lab_folder()
    with tempfile.TemporaryDirectory(dir=PLACE) as home:
        write(f"{home}/secret")
        script = f"cat {home}/secret 2>/dev/null; touch {home}/own && ls {home}"
        assert await machine.says(script, root=Root(FOLDER)) == "secret\nown\nsecret"
        assert await machine.says(script, root=Root(FOLDER, hidden=[home])) == "own"
        assert await machine.says(f"umount {home} 2>/dev/null || ls -A {home}", root=Root(FOLDER, hidden=[home])) == ""


@pytest.mark.kernel
@contained
async def test_homes_and_what_others_keep_are_empty_unless_homes_are_wanted(machine: Machine) -> None:
    lab_folder()
    inside = [path for path in OWN if path.startswith("/root/")]
    places = " ".join(HIDDEN_FOLDERS)
    assert await machine.says(f"find {places} -mindepth 1 2>/dev/null | head -3", root=Root(FOLDER)) == ""
    shown = await machine.says("ls -A /root", root=Root(FOLDER, homes=True))
    hidden = await machine.says("ls -A /root", root=Root(FOLDER))
    assert set(hidden.split()) <= {path.split("/")[2] for path in inside} <= set(shown.split())


def write(path: str) -> None:
    """Have a secret there."""
    Path(path).write_text("secret\n")


@pytest.fixture(scope="module")
def lab() -> Iterator[Podplane]:
    """A lab in a place that pods see."""
    with tempfile.TemporaryDirectory(dir=PLACE) as home, nothing_left(Path(home)) as command:
        Path(home).chmod(0o755)
        command("up", "--nodes", "1", "--pods-per-node", "1")
        yield command


@pytest.mark.e2e
def test_the_labs_folder_is_empty_in_a_pod(lab: Podplane) -> None:
    (pod,) = (p["metadata"]["name"] for p in lab.api.objects("pods"))
    folder = lab.folder
    assert folder.kubeconfig.exists()
    said = lab("exec", pod, "--", "find", str(folder.path.parent.parent)).stdout.split()
    assert said == [str(folder.path.parent.parent), str(folder.path.parent)]
