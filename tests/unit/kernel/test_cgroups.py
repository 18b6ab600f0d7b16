"""Control groups: where a process finds its own, and what limits become in each version."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from podplane.kernel import cgroups
from podplane.kernel.cgroups import Group, Groups, Hierarchy, Limits

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
IN_HYBRID = "5:name=systemd:/user.slice\n4:memory:/user.slice/a\n1:cpu,cpuacct:/\n0::/user.slice/b\n"
SECOND = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
BOUND = "30 23 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "own", "found"),
    [
        (SECOND, "0::/user.slice/x.scope\n", [("/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/x.scope", 2, set())]),
        (SECOND, "0::/\n", [("/sys/fs/cgroup", "/sys/fs/cgroup", 2, set())]),
        (BOUND, "0::/docker/abc/lab\n", [("/sys/fs/cgroup", "/sys/fs/cgroup/lab", 2, set())]),
        (BOUND, "0::/docker/other\n", []),
        (SECOND, "0::/../../other\n", []),
        (SECOND + "44 1 0:26 / /other rw - cgroup2 cgroup2 rw\n", "0::/\n", [("/sys/fs/cgroup", "/sys/fs/cgroup", 2, set())]),
        (
            HYBRID,
            IN_HYBRID,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", 1, {"cpu", "cpuacct"}),
                ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user.slice/a", 1, {"memory"}),
                ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/user.slice", 1, {"name=systemd"}),
                ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/user.slice/b", 2, set()),
            ],
        ),
        ("", "0::/\n", []),
        ("31 23\n\n32 31 0:26 / - cgroup2\n" + SECOND, "odd\n0::/\n", [("/sys/fs/cgroup", "/sys/fs/cgroup", 2, set())]),
        (SECOND.replace("/sys/fs", "/a\\040b"), "0::/\n", [("/a b/cgroup", "/a b/cgroup", 2, set())]),
    ],
)
def test_where_a_process_is(mountinfo: str, own: str, found: list[tuple[str, str, int, set[str]]]) -> None:
    there = [(one.point, one.own, one.version, set(one.controllers)) for one in cgroups.mounts(mountinfo, own)]
    assert there == found


def test_limits_of_version_2() -> None:
    groups = Groups([Hierarchy(2, "/g", frozenset({"memory", "cpu", "pids"}))])
    group = groups.of_container("c", Limits(memory=1 << 26, cpu=250, processes=100, asked_cpu=100))
    assert group is not None and group.folders == ("/g/c/inner",)
    assert dict(group.files) == {
        "/g/c/memory.max": str(1 << 26),
        "/g/c/memory.swap.max": "0",
        "/g/c/memory.oom.group": "1",
        "/g/c/cpu.max": "25000 100000",
        "/g/c/cpu.weight": "4",
        "/g/c/pids.max": "100",
        "/g/c/inner/cgroup.max.descendants": "64",
    }


def test_limits_of_version_1() -> None:
    groups = Groups([Hierarchy(1, "/m", frozenset({"memory"})), Hierarchy(1, "/c", frozenset({"cpu"}))])
    assert groups.of_container("c", Limits(memory=1 << 26)) == Group(
        (
            *((f"/m/c/{name}", str(1 << 26)) for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", cgroups.TCP)),
            (f"/m/c/inner/{cgroups.TCP}", str(1 << 26)),
        ),
        ("/m/c/inner", "/c/rest/c"),
    )
    assert groups.of_container("c", Limits(asked_cpu=100)) == Group(
        ((f"/m/rest/c/{cgroups.TCP}", "-1"), ("/c/c/cpu.shares", "102")),
        ("/m/rest/c", "/c/c/inner"),
    )
    group = groups.of_container("c", Limits(cpu=1, asked_cpu=2000))
    assert group is not None and dict(group.files) == {
        f"/m/rest/c/{cgroups.TCP}": "-1",
        "/c/c/cpu.cfs_period_us": "100000",
        "/c/c/cpu.cfs_quota_us": "1000",
        "/c/c/cpu.shares": "2048",
    }


def test_a_container_without_limits_costs_no_controllers() -> None:
    both = Groups([Hierarchy(2, "/g", frozenset()), Hierarchy(1, "/m", frozenset({"memory"}))])
    group = both.of_container("c", Limits(asked_cpu=100))
    assert group is not None and group.folders == ("/g/rest/c", "/m/rest/c")
    assert both.controllers == {"memory"}
    shared = Groups([Hierarchy(2, "/g", frozenset({"memory"}), is_shared=True)])
    assert shared.of_container("c", Limits()) == Group((), ("/g/rest",))
    assert Groups().of_container("c", Limits(memory=1)) is None


@pytest.mark.parametrize("limits", [Limits(), Limits(memory=1 << 26)])
def test_where_no_controller_looks_all_containers_are_in_the_group_of_who_starts_them(limits: Limits) -> None:
    common = Hierarchy(2, "/g", frozenset(), is_shared=True)
    assert Groups([common]).of_container("c", limits) == Group(common=("/g/rest",))
    group = Groups([common, Hierarchy(1, "/m", frozenset({"memory"}), is_shared=True)]).of_container("c", limits)
    assert group is not None and group.common == ("/g/rest",)
    assert group.folders == (("/m/c/inner",) if limits.memory else ("/m/rest",))


@pytest.mark.parametrize("version", [1, 2])
def test_a_process_moves_itself_as_a_thread_where_that_is_possible(tmp_path: Path, version: int) -> None:
    """The kernel waits for nobody then."""
    names = ("cgroup.procs", "tasks") if version == 1 else ("cgroup.procs",)
    for name in names:
        (tmp_path / name).touch()
    cgroups.move_to(str(tmp_path))
    assert [(tmp_path / name).read_text() for name in names] == (["", "0"] if version == 1 else ["0"])


def test_a_group_that_is_gone_can_not_be_moved_to(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cgroup file cgroup.procs: No such file"):
        cgroups.move_to(str(tmp_path / "gone"))


@pytest.mark.parametrize("limit", [0, 1000])
def test_the_weight_of_a_container_is_that_of_its_request(limit: int) -> None:
    groups = Groups([Hierarchy(2, "/g", frozenset({"cpu", "memory"}))])

    def weight(asked: int) -> int:
        group = groups.of_container("c", Limits(memory=1 << 30, cpu=limit, asked_cpu=asked))
        assert group is not None
        return int(dict(group.files)["/g/c/cpu.weight"])

    assert [weight(asked) for asked in (0, 1, 1000, 10_000, 1_000_000)] == [1, 1, 39, 391, 10_000]


@pytest.mark.parametrize(("version", "file", "text"), [(1, "cpu.shares", "2"), (2, "cpu.weight", "1")])
def test_all_that_ask_for_nothing_have_the_smallest_share(tmp_path: Path, version: int, file: str, text: str) -> None:
    (tmp_path / "rest").mkdir()
    (tmp_path / "rest" / file).touch()
    (tmp_path / "pids.max").touch()
    Groups([Hierarchy(version, str(tmp_path), frozenset({"cpu", "pids"}))]).bound(Limits(processes=7))
    assert ((tmp_path / "rest" / file).read_text(), (tmp_path / "pids.max").read_text()) == (text, "7")


def test_buffers_of_connections_of_all_pods_are_bounded_where_memory_does_not_count_them(tmp_path: Path) -> None:
    places = [tmp_path / name for name in (cgroups.TCP, f"rest/{cgroups.TCP}")]
    (tmp_path / "rest").mkdir()
    for place in (*places, *(tmp_path / name for name in ("memory.limit_in_bytes", "memory.max"))):
        place.touch()
    Groups([Hierarchy(2, str(tmp_path), frozenset({"memory"}))]).bound(Limits(memory=9, tcp=7))
    assert [place.read_text() for place in places] == ["", ""]
    Groups([Hierarchy(1, str(tmp_path), frozenset({"memory"}))]).bound(Limits(memory=9, tcp=7))
    assert [place.read_text() for place in places] == ["7", "7"]


def test_groups_that_can_not_all_be_held_leave_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        cgroups.hold([f"{tmp_path}/a", f"{tmp_path}/none"])
    assert os.listdir("/proc/self/fd") == before


def test_a_group_that_somebody_else_removes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "HOLD_PAUSE", 0)
    right, rounds = cgroups.hold, []

    def removed(folders: list[str]) -> list[int]:
        held = right(folders)
        if len(rounds) < 3:
            os.rmdir(folders[0])
        rounds.append(held)
        return held

    monkeypatch.setattr(cgroups, "hold", removed)
    fd = cgroups._make_held(f"{tmp_path}/lab")
    assert len(rounds) == 4 and os.path.samestat(os.fstat(fd), os.stat(f"{tmp_path}/lab"))
    cgroups.remove_stale(str(tmp_path))
    os.close(fd)


@pytest.mark.parametrize("way", ["before", "between"])
def test_a_group_that_was_made_anew_is_not_taken_for_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Two labs start at once: one removes what the other one left when it was killed, which begins anew."""
    lab, right, made = tmp_path / "podplane-lab-0123abcd", fcntl.flock, list[int]()
    lab.mkdir()

    def flock(fd: int, how: int) -> None:
        if how & fcntl.LOCK_EX and not made and way == "before":
            cgroups.remove(str(lab))
            made.append(-1)
            made[0] = cgroups._make_held(str(lab))
        right(fd, how)
        if how & fcntl.LOCK_EX and not made:
            made.append(-1)
            cgroups._remove_unheld(str(lab))  # as who begins anew does
            assert lab.exists(), "who has locked it removes it"

    monkeypatch.setattr(fcntl, "flock", flock)
    cgroups.remove_stale(str(tmp_path))
    assert lab.exists() is (way == "before")


def test_a_lab_that_begins_anew_removes_what_it_left_and_not_what_is_held(tmp_path: Path) -> None:
    mount = cgroups._Mount(str(tmp_path), str(tmp_path), 1)
    held: list[int] = []
    for count in (1, 2):
        (tmp_path / "lab" / "old").mkdir(parents=True)
        assert cgroups._first(mount, "lab", frozenset({"memory"}), held).folder == f"{tmp_path}/lab"
        assert (tmp_path / "lab" / "old").exists() is (count == 2), "somebody else holds it: the first one"
    for fd in held:
        os.close(fd)


def test_a_group_that_somebody_else_has_locked_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "HOLD_PAUSE", 0)
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="somebody else has locked"):
        cgroups._make_held(str(tmp_path))
    os.close(fd)


def test_files_that_not_every_kernel_has_may_be_missing(tmp_path: Path) -> None:
    cgroups.write(f"{tmp_path}/memory.swap.max", "0")
    with pytest.raises(OSError, match=r"cgroup file memory.max: No such file"):
        cgroups.write(f"{tmp_path}/memory.max", "0")


@pytest.mark.parametrize(
    ("file", "text", "killed"), [("memory.events", "oom 1\noom_kill 2\n", True), ("memory.events", "oom_kill 0\n", False)]
)
def test_whether_a_process_was_killed(tmp_path: Path, file: str, text: str, killed: bool) -> None:
    (tmp_path / "c" / "inner").mkdir(parents=True)
    (tmp_path / "c" / file).write_text(text)
    assert cgroups.end(Group((), (f"{tmp_path}/c/inner",))) is killed
    assert not (tmp_path / "c" / "inner").exists()
    assert cgroups.end(Group((), (f"{tmp_path}/none",))) is False
