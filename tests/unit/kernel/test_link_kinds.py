"""Which kinds of links a kernel lacks, and how that is told."""

from __future__ import annotations

import errno
import shutil
import subprocess

import pytest

from podplane.kernel import link_kinds
from podplane.kernel.errors import Denied, Exists, KernelError, Unsupported, from_errno
from podplane.kernel.rtnl.conflicts import MODULES, explained
from podplane.routes.table import BACKENDS
from podplane.state.network import Address, Gre, Link, Vxlan
from podplane.state.value import address_of

GRE, IP6GRE = Link(name="podplane-gre4", kind="gre", gre=Gre()), Link(name="podplane-gre6", kind="ip6gre", gre=Gre())


def refused(number: int) -> KernelError:
    """As the kernel refuses to make a link."""
    return from_errno("create link podplane-gre4", number, "Unknown device type" if number == errno.EOPNOTSUPP else "")


def test_a_link_of_a_kind_that_the_kernel_lacks_is_refused_with_the_module() -> None:
    told = [explained(link, refused(errno.EOPNOTSUPP)) for link in (GRE, IP6GRE)]
    assert all(isinstance(error, Unsupported) for error in told)
    assert str(told[0]).endswith("Unknown device type (Operation not supported); this kernel lacks the module ip_gre")
    assert str(told[1]).endswith("; this kernel lacks the module ip6_gre")


def test_a_second_external_device_is_refused_with_what_is_in_the_way() -> None:
    told = explained(IP6GRE, refused(errno.EEXIST))
    assert isinstance(told, Exists) and "one external device of type ip6gre at most: remove the other one" in str(told)


def test_other_refusals_stay_as_the_kernel_has_them() -> None:
    address = Address(link="podplane-gre4", ip=address_of("10.244.1.1"), prefix_length=32)
    for value, number in ((GRE, errno.EPERM), (address, errno.EOPNOTSUPP), (Link(name="cbr0", kind="bridge"), errno.EEXIST)):
        error = refused(number)
        assert explained(value, error) is error
    assert isinstance(refused(errno.EPERM), Denied)


def test_each_kind_of_link_of_a_backend_has_a_module_to_be_named() -> None:
    kinds = {kind for backend in BACKENDS for kind in backend.kinds.values()}
    assert kinds == {"vxlan", "gre", "ip6gre"} and kinds <= MODULES.keys()
    assert link_kinds.modules(["gre"]) == "module ip_gre"
    assert link_kinds.modules(["gre", "ip6gre"]) == "modules ip_gre and ip6_gre"


@pytest.mark.parametrize("kind", ["vxlan", "gre", "ip6gre", "nobodys"])
def test_a_kind_is_missing_where_ip_can_not_make_one_either(kind: str) -> None:
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("ip or unshare is not installed")
    words = {"vxlan": ["id", "1", "dstport", "4789"]}.get(kind, ["external"])
    made = subprocess.run(["unshare", "-Urn", "ip", "link", "add", "x", "type", kind, *words], capture_output=True, check=False)
    assert link_kinds.missing([kind]) == ([kind] if made.returncode else [])
    assert link_kinds.missing([]) == []


def test_who_has_a_vni_or_a_port_is_named() -> None:
    def made(name: str, vni: int, port: int = 4789) -> Link:
        return Link(name=name, kind="vxlan", vxlan=Vxlan(vni=vni, port=port))

    others = [made("podplane-vxlan4", 1), made("far", 1, 8472), made("two", 2), made("one", 1)]
    own = made("podplane-vxlan4", 1)
    taken = explained(own, refused(errno.EEXIST), lambda: others)
    assert "VNI 1 at UDP port 4789 is taken by the link one" in str(taken) and "ip link delete one" in str(taken)
    assert "UDP port 4789 is taken by the link two" in str(explained(own, refused(errno.EADDRINUSE), lambda: others))
    assert "socket of a process" in str(explained(own, refused(errno.EADDRINUSE), lambda: others[:2]))
    error = refused(errno.EEXIST)
    assert explained(own, error, lambda: others[:2]) is error
