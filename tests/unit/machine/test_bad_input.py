"""Whatever is wrong with a machine, its Node, its cluster or its configuration: one clear line, an event of the Node, no readiness, and
nothing changed. A row for each kind."""

from __future__ import annotations

import asyncio
import datetime
import errno
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.agent.ownership import ownership
from podplane.kubeapi.errors import ApiError
from podplane.machine import configuration
from podplane.machine.cluster import Waiting, waits_for
from podplane.machine.confinement import denied
from podplane.machine.errors import MachineError
from podplane.machine.overlaps import Surrounding
from podplane.machine.preflight import Facts, Preflight, problems
from podplane.model.config import NetworkConfig
from podplane.state.network import Address, Link, Route
from podplane.state.ownership import link_alias
from podplane.state.value import Value, address_of, network_of
from tests.plans import config
from tests.unit.machine.test_cidrs import KUBEADM, FakeApi
from tests.unit.machine.test_surroundings import Rig, at_once, until  # noqa: F401  # one that all tests here use

V4 = (4,)
NOW = datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC)
HINT = "choose another one, or name {} in `allow_overlaps` of the configuration"
HOST: tuple[Value, ...] = (
    Link(name="lo"),
    Link(name="eth0"),
    Address(link="lo", ip=address_of("127.0.0.1"), prefix_length=8),
    Address(link="eth0", ip=address_of("192.168.1.10"), prefix_length=24),
    Address(link="eth0", ip=address_of("fe80::1"), prefix_length=64),
    Route(destination=network_of("0.0.0.0/0"), gateway=address_of("192.168.1.1"), link="eth0", protocol=4),
    Route(destination=network_of("0.0.0.0/1"), link="eth0", protocol=4),
    Route(destination=network_of("ff00::/8"), link="eth0", protocol=2),
)
"""A machine that is as machines are."""


def facts(
    *more: Value, pods: str = "10.244.0.0/16", services: str = "10.96.0.0/12", allowed: tuple[str, ...] = (), **around: Any
) -> Facts:
    """Of this machine, with more objects."""
    surrounding = Surrounding(
        values=(*HOST, *more), own=ownership(config(V4)), uplink="eth0", node_ips=("192.168.1.10",), allowed=allowed, **around
    )
    return Facts(pods=(pods,), services=(services,), around=surrounding, run_dir="/run/podplane")


def on(link: str, ip: str, length: int, **fields: Any) -> tuple[Value, ...]:
    return Link(name=link, **fields), Address(link=link, ip=address_of(ip), prefix_length=length)


def route(to: str, **fields: Any) -> Route:
    return Route(destination=network_of(to), protocol=fields.pop("protocol", 4), **fields)


OVERLAPS: dict[str, tuple[Facts, str]] = {
    "pods and Services": (
        facts(pods="10.0.0.0/8"),
        "10.0.0.0/8, a network of pods, overlaps 10.96.0.0/12, a network of Services",
    ),
    "the node's own network": (
        facts(pods="192.168.0.0/16"),
        f"192.168.0.0/16, a network of pods, overlaps 192.168.1.0/24, the node's own network (eth0): {HINT.format('192.168.1.0/24')}",
    ),
    "Services and the node's own network": (
        facts(services="192.168.1.0/24"),
        "192.168.1.0/24, a network of Services, overlaps 192.168.1.0/24, the node's own network (eth0): "
        + HINT.format("192.168.1.0/24"),
    ),
    "a name server": (
        facts(name_servers=("127.0.0.53", "10.244.0.53", "nonsense")),
        f"10.244.0.0/16, a network of pods, overlaps 10.244.0.53/32, a name server of this machine: {HINT.format('10.244.0.53/32')}",
    ),
    "the network of another link": (
        facts(*on("docker0", "10.244.7.1", 24)),
        "10.244.0.0/16, a network of pods, overlaps 10.244.7.0/24, the network of a link of this machine (docker0): "
        + HINT.format("10.244.7.0/24"),
    ),
    "a wider network of another link": (
        facts(*on("wg0", "10.8.0.1", 8)),
        "10.244.0.0/16, a network of pods, overlaps 10.0.0.0/8, the network of a link of this machine (wg0): "
        + HINT.format("10.0.0.0/8"),
    ),
    "a route": (
        facts(route("10.244.9.0/24", gateway=address_of("192.168.1.1"), link="eth0")),
        "10.244.0.0/16, a network of pods, overlaps 10.244.9.0/24, to which a route of this machine leads "
        f"(via 192.168.1.1 dev eth0): {HINT.format('10.244.9.0/24')}",
    ),
    "a route that leads nowhere": (
        facts(route("10.100.0.0/16", kind="blackhole")),
        "10.96.0.0/12, a network of Services, overlaps 10.100.0.0/16, to which a route of this machine leads (blackhole): "
        + HINT.format("10.100.0.0/16"),
    ),
    "the API": (
        facts(api="10.244.0.10"),
        f"10.244.0.0/16, a network of pods, overlaps 10.244.0.10/32, the address of the API: {HINT.format('10.244.0.10/32')}",
    ),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_an_overlap_is_told_with_both_networks(name: str) -> None:
    given, line = OVERLAPS[name]
    assert line in problems(given)


HARMLESS: dict[str, Facts] = {
    "nothing else": facts(),
    "podplane's own": facts(
        *on("cbr0", "10.244.1.1", 32, kind="bridge", alias=link_alias()), route("10.244.2.0/24", link="eth0", protocol=80)
    ),
    "a route by a link of podplane's": facts(
        Link(name="cbr0", kind="bridge", alias=link_alias()), route("10.244.1.9/32", link="cbr0", protocol=2)
    ),
    "a Service's address on a link": facts(*on("nodelocaldns", "10.96.0.10", 32), *on("kube-ipvs0", "10.96.0.1", 32)),
    "a name server that is a Service": facts(name_servers=("10.96.0.10",)),
    "the API by its Service": facts(api="10.96.0.1"),
    "the API by a name": facts(api="api.example.com"),
    "another family": facts(*on("eth1", "fd00:10:244::1", 48)),
    "what may overlap": facts(*on("wg0", "10.8.0.1", 8), route("10.244.2.0/24", link="eth0"), allowed=("10.0.0.0/8",)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_is_not_refused(name: str) -> None:
    assert problems(HARMLESS[name]) == []


def test_of_blocks_only_those_that_overlap_are_told() -> None:
    found = msgspec.structs.replace(facts(*on("eth1", "10.244.3.1", 24)), pods=("10.244.1.0/24", "10.244.3.0/24"))
    (line,) = problems(found)
    assert line.startswith("10.244.3.0/24, a network of pods, overlaps 10.244.3.0/24, the network of a link")


OTHERS: dict[str, tuple[Facts, str]] = {
    "the kernel": (
        msgspec.structs.replace(facts(), lacking=("this kernel has no nf_tables: load its module (modprobe nf_tables)",)),
        "this kernel has no nf_tables: load its module (modprobe nf_tables)",
    ),
    "rights": (
        msgspec.structs.replace(facts(), missing_rights=("the API does not permit this agent to patch nodes",)),
        "the API does not permit this agent to patch nodes",
    ),
    "two machines": (
        msgspec.structs.replace(facts(), other_machine="two machines are the Node w1"),
        "two machines are the Node w1",
    ),
    "a network file": (
        msgspec.structs.replace(facts(), network_file="/etc/cni/net.d/05-a.conf comes before 10-podplane.conflist"),
        "container engines are not told of the network: /etc/cni/net.d/05-a.conf comes before 10-podplane.conflist",
    ),
    "a clock": (
        msgspec.structs.replace(facts(), skew=301.5),
        "the clock of this machine is 5 min ahead of the API's: set it (timedatectl, chronyc tracking)",
    ),
    "a late clock": (
        msgspec.structs.replace(facts(), skew=-7200.0),
        "the clock of this machine is 2 h behind the API's: set it (timedatectl, chronyc tracking)",
    ),
    "a disk": (
        msgspec.structs.replace(facts(), free=4096),
        "no space left for /run/podplane: 4 KiB are free, and pods can't be attached without 1 MiB: make room",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_each_is_one_line(name: str) -> None:
    given, line = OTHERS[name]
    assert problems(given) == [line] and "\n" not in line


class FakePreflight(Preflight):
    """One that finds this."""

    _api = ""

    def __init__(self, found: Facts, other: str = "") -> None:
        self.found, self.one = found, self  # type: ignore[assignment]  # it is asked for both
        self.other = other

    async def look(self, network: NetworkConfig, *_: object) -> Facts:
        return self.found

    async def problem(self, *_: object) -> str:
        return self.other


def rig_with(folder: Path, preflight: FakePreflight) -> Rig:
    rig = Rig(folder, FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, []))
    rig.tested._preflight = preflight
    rig.events: list[str] = []  # type: ignore[misc]
    rig.tested._waiting.tell = rig.events.append  # type: ignore[attr-defined]
    return rig


@pytest.mark.parametrize("name", [*OVERLAPS, *OTHERS])
async def test_an_agent_does_not_begin_and_tells_why_until_that_is_mended(name: str, tmp_path: Path) -> None:
    given, line = (OVERLAPS | OTHERS)[name]
    preflight = FakePreflight(given)
    rig = rig_with(tmp_path, preflight)
    begun = asyncio.create_task(rig.tested.settings())
    await until(lambda: line in rig.events)  # type: ignore[attr-defined]
    assert rig.waited[-1].startswith(problems(given)[0]) and not begun.done()
    preflight.found = facts()
    assert (await begun).network.uplink == "eth0"
    assert rig.tested.without == [] and rig.told == []


async def test_a_node_whose_network_is_in_place_goes_on_and_is_not_ready(tmp_path: Path) -> None:
    given, line = OTHERS["rights"]
    here = Link(name="cbr0", kind="bridge", alias=link_alias())
    rig = rig_with(tmp_path, FakePreflight(msgspec.structs.replace(facts(here), missing_rights=given.missing_rights)))
    assert (await rig.tested.settings()).network.uplink == "eth0"
    assert rig.tested.in_the_way == rig.tested.without == rig.told == [line]


async def test_a_node_of_another_machine_is_not_touched_even_if_its_network_is_in_place(tmp_path: Path) -> None:
    here = Link(name="cbr0", kind="bridge", alias=link_alias())
    preflight = FakePreflight(facts(here), "two machines are the Node node1: a and b")
    rig = rig_with(tmp_path, preflight)
    begun = asyncio.create_task(rig.tested.settings())
    await until(lambda: preflight.other in rig.waited)
    assert not begun.done()
    begun.cancel()


async def test_a_machine_without_the_address_of_its_node_waits_for_it(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, FakePreflight(facts()))
    rig.links = {"eth0": ("192.0.2.1", 1500)}
    begun = asyncio.create_task(rig.tested.settings())
    await until(lambda: any("no link of this machine has an address of its Node" in one for one in rig.waited))
    rig.links = {"eth0": ("192.168.1.10", 1500)}
    assert (await begun).network.uplink == "eth0"


API: dict[str, tuple[ApiError, str]] = {
    "not permitted": (
        ApiError(
            403, "Forbidden", 'nodes is forbidden: User "a" cannot list resource "nodes" in API group "" at the cluster scope'
        ),
        'the API does not permit what this agent has to do: nodes is forbidden: User "a" cannot list resource "nodes" in API group '
        '"" at the cluster scope: apply what `podplane agent rbac` prints',
    ),
    "a clock that is behind": (
        ApiError(
            503,
            "ServiceUnavailable",
            f"the API does not answer: {ssl.SSLCertVerificationError(1, 'certificate is not yet valid')}",
        ),
        "the API's certificate is not valid yet by the clock of this machine, which says 2026-11-27 00:00:00 UTC: is that right?",
    ),
    "a clock that is ahead": (
        ApiError(503, "ServiceUnavailable", "certificate verify failed: certificate has expired"),
        "the API's certificate has expired by the clock of this machine, which says 2026-11-27 00:00:00 UTC: is that right?",
    ),
    "credentials": (ApiError(401, "Unauthorized", "Unauthorized"), "the API refuses the credentials of this agent (401)"),
    "away": (ApiError(503, "ServiceUnavailable", "connection refused"), "waiting for the API: connection refused"),
}


@pytest.mark.parametrize("name", API)
def test_what_the_api_says_is_told_with_what_to_do(name: str) -> None:
    error, line = API[name]
    assert waits_for(error, lambda: NOW).startswith(line)


def test_what_does_not_pass_by_itself_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    told = list[str]()
    waiting = Waiting(lambda text: None)
    waiting.tell = told.append
    waiting.says("waiting for the API: connection refused")
    waiting.hindered("the Node has no InternalIP")
    assert told == ["the Node has no InternalIP"] and waiting.reason == told[0]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"network": {"cluster_cidrs": ["10.244.0.0/33"]}}, "10.244.0.0/33"),
        ({"network": {"cluster_cidrs": ["10.244.0.1/16"]}}, "10.244.0.1/16"),
        ({"network": {"service_cidrs": ["nonsense"]}}, "nonsense"),
        ({"allow_overlaps": ["10.0.0.1/8"]}, "allow_overlaps: .*10.0.0.1/8"),
    ],
)
def test_a_wrong_cidr_is_named(content: dict[str, Any], line: str) -> None:
    with pytest.raises(MachineError, match=line):
        configuration.parsed(content).network()


def test_a_denial_names_what_confines_the_process(tmp_path: Path) -> None:
    label = tmp_path / "current"
    rows: tuple[tuple[str, str], ...] = (
        ("cri-containerd.apparmor.d (enforce)\n", "the AppArmor profile cri-containerd.apparmor.d (enforce)"),
        ("system_u:system_r:container_t:s0:c1,c2\0", "the SELinux context system_u:system_r:container_t:s0:c1,c2"),
        ("unconfined\n", "so a security module or a mount may be why"),
    )
    for text, said in rows:
        label.write_text(text)
        assert said in denied("/run/podplane: Permission denied", errno.EACCES, [label])
    assert denied("/run/podplane: No space left on device", errno.ENOSPC, [label]) == "/run/podplane: No space left on device"
