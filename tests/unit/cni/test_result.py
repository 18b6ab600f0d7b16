"""Results and errors, in the version that the caller speaks."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.cni.errors import MOST_CHARACTERS, CniError, Code, render
from podplane.cni.result import VERSIONS, Address, Dns, Interface, Result, Route, is_before, merged, render_versions
from podplane.cni.result import render as render_result

OWN = Result(
    interfaces=(Interface("pp1", mtu=1500), Interface("eth0", "0a:58:0a:f4:01:02", 1500, "/run/netns/a")),
    ips=(Address("10.244.1.2/32", "10.244.1.1", 1), Address("fd00::2/128", "fd00::1", 1)),
    routes=(Route("0.0.0.0/0", "10.244.1.1"), Route("::/0", "fd00::1", mtu=1400, table=254)),
)


def rendered(version: str, result: Result = OWN) -> dict[str, Any]:
    raw: dict[str, Any] = msgspec.json.decode(render_result(result, version))
    return raw


def test_the_newest_version_has_all() -> None:
    assert rendered("1.1.0", msgspec.structs.replace(OWN, dns=Dns(()))) == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "pp1", "mtu": 1500},
            {"name": "eth0", "mac": "0a:58:0a:f4:01:02", "mtu": 1500, "sandbox": "/run/netns/a"},
        ],
        "ips": [
            {"address": "10.244.1.2/32", "gateway": "10.244.1.1", "interface": 1},
            {"address": "fd00::2/128", "gateway": "fd00::1", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, {"dst": "::/0", "gw": "fd00::1", "mtu": 1400, "table": 254}],
    }


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_older_versions_have_what_they_know(version: str) -> None:
    raw = rendered(version)
    assert raw["cniVersion"] == version
    assert raw["interfaces"] == [{"name": "pp1"}, {"name": "eth0", "mac": "0a:58:0a:f4:01:02", "sandbox": "/run/netns/a"}]
    assert raw["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, {"dst": "::/0", "gw": "fd00::1"}]
    versions = [one.get("version") for one in raw["ips"]]
    assert versions == (["4", "6"] if is_before(version, "1.0.0") else [None, None])


def test_what_plugins_before_have_made_comes_first() -> None:
    before = Result(
        interfaces=(Interface("lo", sandbox="/run/netns/a"),),
        ips=(Address("127.0.0.1/8", interface=0), Address("10.9.0.1/24")),
        routes=(Route("10.9.0.0/24"),),
        dns=Dns(("10.9.0.1",)),
    )
    both = merged(before, OWN)
    assert [one.name for one in both.interfaces] == ["lo", "pp1", "eth0"]
    assert [one.interface for one in both.ips] == [0, None, 2, 2]
    assert [one.ip for one in both.of_interface("eth0")] == ["10.244.1.2", "fd00::2"]
    assert both.dns == Dns(("10.9.0.1",))
    assert merged(before, msgspec.structs.replace(OWN, dns=Dns(domain="x"))).dns == Dns(domain="x")
    assert both.has_interface("eth0") and not both.has_interface("pp1"), "a node's interface is not the container's"


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(lambda ip: f"{ip}/{ip.max_prefixlen}")
interfaces = st.lists(
    st.builds(Interface, st.sampled_from(["lo", "eth0", "net1"]), sandbox=st.sampled_from(["", "/n"])), max_size=3
)


@st.composite
def results(draw: st.DrawFn) -> Result:
    own = tuple(draw(interfaces))
    index = st.none() if not own else st.none() | st.integers(0, len(own) - 1)
    ips = draw(st.lists(st.builds(Address, addresses, interface=index), max_size=3))
    return Result(interfaces=own, ips=tuple(ips), routes=(Route("0.0.0.0/0"),) * draw(st.integers(0, 2)))


@given(results(), st.sampled_from(VERSIONS))
def test_a_result_is_read_back_as_it_was_rendered(result: Result, version: str) -> None:
    read = msgspec.json.decode(render_result(result, version), type=Result)
    assert msgspec.structs.replace(read, cni_version="") == result
    for raw in rendered(version, result).get("ips", ()):
        assert raw.get("version", "") in ("", str(ipaddress.ip_interface(raw["address"]).version))


@given(results(), results())
def test_of_two_results_each_address_stays_on_its_interface(one: Result, other: Result) -> None:
    both = merged(one, other)
    on = [None if ip.interface is None else both.interfaces[ip.interface] for ip in both.ips]
    assert on == [None if ip.interface is None else of.interfaces[ip.interface] for of in (one, other) for ip in of.ips]


def test_versions_are_told() -> None:
    assert msgspec.json.decode(render_versions("0.4.0")) == {"cniVersion": "0.4.0", "supportedVersions": list(VERSIONS)}


def test_an_error_is_told_in_short() -> None:
    told = msgspec.json.decode(render(CniError(Code.TRY_AGAIN, "soon", "why"), "1.0.0"))
    assert told == {"cniVersion": "1.0.0", "code": 11, "msg": "soon", "details": "why"}
    told = msgspec.json.decode(render(CniError(Code.REFUSED, "x" * 20_000 + "\udc80"), "1.0.0"))
    assert (len(told["msg"]), told.get("details")) == (MOST_CHARACTERS, None)
    assert msgspec.json.decode(render(CniError(Code.REFUSED, "a\udc80b"), "1.0.0"))["msg"] == "a?b"
