"""What was opened in a network namespace by somebody else: it is what it is said to be, and works from another one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.errors import Denied, NotFound
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener, has_link, leads_into
from podplane.kernel.passed import DIAG, IPV6, PROTOCOLS, ROUTE, Passed
from podplane.state.network import Address, Link, Peer, Sysctl
from podplane.state.operations import Operation
from podplane.state.value import address_of

pytestmark = pytest.mark.kernel
SYSCTL = "net.ipv6.conf.default.accept_ra"


def opened(name: str) -> int:
    """One of what the plugin opens, in the namespace of the thread."""
    if name == IPV6:
        return os.open("/proc/sys/net/ipv6", os.O_RDONLY | os.O_DIRECTORY)
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, PROTOCOLS[name]).detach()


def all_of(one: NetworkNamespace) -> dict[str, int]:
    return {name: one.run(opened, name) for name in (ROUTE, DIAG, IPV6)}


class Sealed(Workers):
    """Those of a process that may not enter network namespaces."""

    may_enter = False

    def submit(self, function: Callable[..., object], *arguments: object) -> object:  # type: ignore[override]  # it never returns
        raise PermissionError(1, "Operation not permitted")


def sealed(one: NetworkNamespace, passed: Passed | None = None) -> NetworkNamespace:
    return NetworkNamespace(os.dup(one.fd), Sealed(0), passed)


def test_a_pod_is_set_up_without_entering_its_namespace() -> None:
    workers = Workers(1)
    pod = NetworkNamespace.create(workers)
    passed = Passed.take(pod.fd, all_of(pod))
    assert passed is not None and passed.cookie == pod.cookie
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    kernel.attach("a", sealed(pod, passed))
    values = [
        Sysctl(netns="a", name=SYSCTL, value="0"),
        Link(name="pp1", kind="veth", peer=Peer(netns="a", name="eth0", mac="0a:58:00:00:00:01")),
        Link(netns="a", name="eth0"),
        Address(netns="a", link="eth0", ip=address_of("10.0.0.2"), prefix_length=32),
    ]
    own = Path("/proc/sys", SYSCTL.replace(".", "/")).read_text()
    for some in (values[:3], values[3:]):  # the socket and the folder stay open for the next time
        report = kernel.apply([Operation(None, value) for value in some])
        assert not report.failed, [str(failure) for failure in report.failed]
        assert some[-1].identity in kernel.read_namespace("a")
    assert pod.run(Path("/proc/sys", SYSCTL.replace(".", "/")).read_text) == "0\n"
    assert Path("/proc/sys", SYSCTL.replace(".", "/")).read_text() == own, "that of this namespace is another one"
    assert has_link(sealed(pod, passed), "eth0") and not has_link(sealed(pod, passed), "eth1")
    sysctls = KernelOpener().sysctls(sealed(pod, passed))
    assert sysctls.read([SYSCTL, "net.ipv6.none"]) == {SYSCTL: "0"}
    refused = sysctls.set({"net.ipv4.ip_forward": "1", "net.ipv6.none": "1"})
    assert isinstance(refused["net.ipv4.ip_forward"], Denied) and isinstance(refused["net.ipv6.none"], NotFound)
    workers.close()


def test_a_namespace_that_nobody_opened_anything_in_says_what_it_lacks() -> None:
    workers = Workers(1)
    pod = NetworkNamespace.create(workers)
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    kernel.attach("a", sealed(pod))
    with pytest.raises(
        Denied, match=r"network namespace a: it can't be entered without CAP_SYS_ADMIN; the plugin's next CHECK"
    ):
        kernel.read_namespace("a")
    (failure,) = kernel.apply([Operation(None, Link(netns="a", name="lo"))]).failed
    assert isinstance(failure.error, Denied)
    workers.close()


def test_what_is_not_what_it_is_said_to_be_is_refused_and_closed() -> None:
    workers = Workers(1)
    pod, other = NetworkNamespace.create(workers), NetworkNamespace.create(workers)
    wrong: tuple[tuple[str, Callable[[], int]], ...] = (
        (ROUTE, lambda: other.run(opened, ROUTE)),
        (ROUTE, lambda: pod.run(opened, DIAG)),
        (ROUTE, lambda: pod.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM).detach()),
        (ROUTE, lambda: os.open("/dev/null", os.O_RDONLY)),
        (DIAG, lambda: other.run(opened, DIAG)),
        (IPV6, lambda: os.open("/proc", os.O_RDONLY)),
        (IPV6, lambda: opened(IPV6)),  # of the node
    )
    before = len(os.listdir("/proc/self/fd"))
    for name, make in wrong:
        descriptors = all_of(pod)
        os.close(descriptors.pop(name))
        descriptors[name] = make()
        with pytest.raises(ValueError, match="what was opened in the network namespace can't be used"):
            Passed.take(pod.fd, descriptors)
        for left in descriptors.values():
            os.close(left)
        assert len(os.listdir("/proc/self/fd")) == before
    descriptors = all_of(pod)
    os.close(descriptors.pop(ROUTE))
    assert Passed.take(pod.fd, descriptors) is None and len(descriptors) == 2
    workers.close()


def test_a_socket_that_another_process_used_is_used_on() -> None:
    workers = Workers(1)
    pod = NetworkNamespace.create(workers)
    first = Passed.take(pod.fd, all_of(pod))
    assert first is not None
    link = has_link(sealed(pod, first), "lo")
    kept = dict(zip((ROUTE, DIAG, IPV6), map(os.dup, first.descriptors), strict=True))
    first.close()
    first.close()
    second = Passed.take(pod.fd, kept)
    assert second is not None and link and has_link(sealed(pod, second), "lo")
    workers.close()


def test_a_link_tells_in_which_namespace_its_far_end_is() -> None:
    workers, here = Workers(1), CurrentNamespace()
    pod, other = NetworkNamespace.create(workers), NetworkNamespace.create(workers)
    kernel = Kernel(here, KernelOpener())
    kernel.attach("a", pod)
    kernel.apply([Operation(None, Link(name="pp1", kind="veth", peer=Peer(netns="a", name="eth0", mac="0a:58:00:00:00:01")))])
    assert [leads_into(here, name, place) for name, place in (("pp1", pod), ("pp1", other), ("pp2", pod), ("lo", pod))] == [
        True,
        False,
        None,
        None,
    ]
    with NetworkNamespace.open("/dev/null", workers) as none, pytest.raises(OSError, match="22"):
        leads_into(here, "pp1", none)
    workers.close()
