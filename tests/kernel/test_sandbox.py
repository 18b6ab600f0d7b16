"""The namespaces of a pod: whose they are, and what is left of what made them."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from podplane.kernel import sandbox, syscalls
from podplane.kernel.ids import Ids
from tests.kernel.test_zygote import namespaces

pytestmark = pytest.mark.kernel


def test_the_user_namespace_owns_the_others() -> None:
    made = sandbox.make(Ids())
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -9
    owners = [fcntl.ioctl(fd, sandbox.NS_GET_USERNS) for fd in made]
    (own,) = {os.fstat(owner).st_ino for owner in owners}
    for owner in owners:
        os.close(owner)
    assert f"user:[{own}]" != namespaces()["user"]
    made.close()


def test_each_is_another_and_nothing_stays_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    many = [sandbox.make(Ids()) for _ in range(5)]
    for _ in many:
        os.wait()
    assert len({os.fstat(fd).st_ino for one in many for fd in one}) == 15
    for one in many:
        one.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_where_there_can_be_none_it_is_told() -> None:
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="clone:"):
        sandbox.make(Ids())
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_process_that_namespaces_are_made_with_executes_nothing_of_the_callers_and_ends() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    pid = syscalls.sleep_in(syscalls.CLONE_NEWUTS, 0)
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None
    assert os.waitpid(pid, 0) == (pid, 0)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_it_has_namespaces_of_its_own_and_the_memory_of_the_caller() -> None:
    pid = syscalls.sleep_in(syscalls.CLONE_NEWUTS, 100)
    try:
        assert os.readlink(f"/proc/{pid}/ns/uts") != os.readlink("/proc/self/ns/uts")
        assert Path(f"/proc/{pid}/maps").read_text() == Path("/proc/self/maps").read_text()
    finally:
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
