"""The namespaces of a pod: whose they are, and what is left of what made them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from podplane.kernel import sandbox
from podplane.kernel.ids import Ids
from tests.kernel.test_zygote import namespaces

pytestmark = pytest.mark.kernel
NS_GET_USERNS = 0xB701
"""The ioctl that gives the user namespace that owns another one (ioctl_ns(2))."""


def test_the_user_namespace_owns_the_others() -> None:
    made = sandbox.make(Ids())
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -9
    own = os.fstat(made.user).st_ino
    for fd in (made.net, made.ipc, made.uts):
        owner = fcntl.ioctl(fd, NS_GET_USERNS)
        assert os.fstat(owner).st_ino == own
        os.close(owner)
    assert f"user:[{own}]" != namespaces()["user"]
    made.close()


def test_each_is_another_and_nothing_stays_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    many = [sandbox.make(Ids()) for _ in range(5)]
    for _ in many:
        os.wait()
    assert len({os.fstat(fd).st_ino for one in many for fd in (one.user, one.net, one.ipc, one.uts)}) == 20
    for one in many:
        one.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_where_there_can_be_none_it_is_told() -> None:
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="clone3"):
        sandbox.make(Ids())
    assert sorted(os.listdir("/proc/self/fd")) == before
