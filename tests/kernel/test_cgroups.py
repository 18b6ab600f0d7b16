"""Control groups of version 2 as the kernel has them: a process divides those that it was given, and what is left is removed."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Group, Unusable

pytestmark = pytest.mark.kernel


@pytest.fixture
def given(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A group that is this test's, with one of the controllers that there are, as a user has one that was delegated."""
    there = cgroups.mounts(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    point = next((one.point for one in there if one.version == 2), "")
    if not point or not os.access(f"{point}/{cgroups.BELOW}", os.W_OK):
        pytest.skip("groups of version 2 can't be made here")
    root = os.open(point, os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)  # it is the machine's, where these tests may run twice at once
    request.addfinalizer(lambda: os.close(root))
    available = Path(f"{point}/{cgroups.AVAILABLE}").read_text().split()
    enabled = Path(f"{point}/{cgroups.BELOW}").read_text().split()
    if not available:
        pytest.skip("no controller of version 2 is free here")
    name = next(iter(enabled), available[0])
    monkeypatch.setattr(cgroups, "CONTROLLERS", (name,))
    folder = f"{point}/test-of-podplane-{secrets.token_hex(4)}"
    os.mkdir(folder)
    try:
        if name not in enabled:
            cgroups.write(f"{point}/{cgroups.BELOW}", f"+{name}")
        yield folder
    finally:
        cgroups.remove(folder)
        if name not in enabled:
            cgroups.write(f"{point}/{cgroups.BELOW}", f"-{name}")
        assert not os.path.exists(folder)


def divided(given: str) -> cgroups.Hierarchy:
    """Those of a lab below a group, for a process that begins in there."""
    cgroups.write(f"{given}/{cgroups.PROCESSES}", "0")
    return cgroups._second(cgroups._Mount("/nowhere", given, 2), "lab", [], is_root=False)


def test_a_group_is_divided_by_the_process_that_is_alone_in_it(given: str) -> None:
    made = divided(given)
    assert made.folder == f"{given}/lab" and set(made.controllers) == set(cgroups.CONTROLLERS)
    group = Group((), (f"{made.folder}/{cgroups.REST}/c",))
    cgroups.enter(group)
    assert Path("/proc/self/cgroup").read_text().strip().endswith("/lab/rest/c")
    assert cgroups.end(group) is False and os.path.isdir(group.folders[0]), "who is in there keeps it"


def test_others_in_a_group_are_left_alone(given: str) -> None:
    ready, tell = os.pipe()
    waits, end = os.pipe()
    other = os.fork()
    if other == 0:
        os.close(end)
        cgroups.write(f"{given}/{cgroups.PROCESSES}", "0")
        os.write(tell, b"x")
        os.read(waits, 1)
        os._exit(0)
    os.read(ready, 1)
    with pytest.raises(Unusable, match=r"other processes .* \(1\)"):
        divided(given)
    os.close(end)
    os.waitpid(other, 0)


def test_a_group_that_is_not_this_users_is_not_used(given: str) -> None:
    with pytest.raises(Unusable, match="no control group is delegated"):
        cgroups._second(cgroups._Mount("/nowhere", f"{given}/none", 2), "lab", [], is_root=False)


def test_groups_of_labs_that_ended_are_removed_and_others_are_not(given: str) -> None:
    names = ("podplane-t1-2-0123abcd", "podplane-lab-00000000", "podplane-others", "other-lab-00000000")
    for name in names:
        os.makedirs(f"{given}/{name}/rest")
    (held,) = cgroups.hold([f"{given}/{names[1]}"])
    cgroups.remove_stale(given)
    assert [os.path.isdir(f"{given}/{name}/rest") for name in names] == [False, True, True, True]
    os.close(held)
    cgroups.remove_stale(given)
    assert [os.path.exists(f"{given}/{name}") for name in names] == [False, False, True, True]


def test_groups_in_groups_beside_ones_own_are_found(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [f"{given}/{place}/podplane-lab-0123abcd" for place in ("own", "beside", "")]
    for folder in left:
        os.makedirs(f"{folder}/rest/inner")
    monkeypatch.setattr(cgroups, "_mounts", lambda: [cgroups._Mount("/nowhere", f"{given}/own", 2)])
    cgroups.tidy()
    assert [os.path.exists(folder) for folder in left] == [False] * 3
