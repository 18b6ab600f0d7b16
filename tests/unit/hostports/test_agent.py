"""Host ports of an agent: pods come, contest a port, and go; what is in the kernel, and who is told."""

from __future__ import annotations

import ipaddress

import msgspec

from podplane.cni.network import Attachment
from podplane.hostports.settings import HostPortSettings
from podplane.hostports.tables import TABLE
from podplane.model.view import HostPort
from podplane.state.conntrack import Frontend
from podplane.state.nft import Element, NftValue, Table
from tests.unit.agent.rig import Rig, cluster

WEB = (HostPort(8080, 80),)
LOCALNET = "net.ipv4.conf.cbr0.route_localnet"


def ports(rig: Rig) -> dict[int, str]:
    """Whose IPv4 port of all addresses is whose."""
    found = (v for v in rig.host.objects.nft.values() if isinstance(v, Element) and v.set == "ports4")
    return {v.key[1]: v.comment for v in found}  # type: ignore[misc]  # a port


def own_values(rig: Rig) -> list[NftValue]:
    """What is in the table of host ports."""
    return [v for v in rig.host.objects.nft.values() if isinstance(v, NftValue) and (v.family, v.table) == TABLE]


def table(rig: Rig) -> bool:
    return any(isinstance(v, Table) for v in own_values(rig))


async def attach(rig: Rig, name: str, *host_ports: HostPort, **more: str) -> Attachment:
    request = rig.attachment(name, host_ports=host_ports, **more)
    await rig.agent.network.add(request)
    return request


async def test_the_table_and_route_localnet_come_with_the_first_port_and_go_with_the_last() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await attach(rig, "plain")
    assert not table(rig) and rig.host.objects.sysctls[LOCALNET] == "0"
    pods = [await attach(rig, "one", *WEB), await attach(rig, "two", HostPort(8081, 80))]
    assert ports(rig) == {8080: "pod/default/one", 8081: "pod/default/two"}
    assert rig.host.objects.sysctls[LOCALNET] == "1"
    await rig.agent.network.delete(pods[0])
    assert ports(rig) == {8081: "pod/default/two"} and table(rig)
    await rig.agent.network.delete(pods[1])
    await rig.settle()
    assert not own_values(rig) and rig.host.objects.sysctls[LOCALNET] == "0"
    assert not rig.events and not rig.agent.ledger.refused


async def test_the_older_attachment_has_the_port_and_the_other_one_comes_without_it() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    older = await attach(rig, "zebra", *WEB)
    younger = await attach(rig, "ape", *WEB, HostPort(9090, 90))
    assert ports(rig) == {8080: "pod/default/zebra", 9090: "pod/default/ape"}
    why = "host port 8080/tcp of all IPv4 addresses belongs to pod/default/zebra: choose another one"
    assert ("pod/default/ape", "NotApplied", why) in rig.events
    assert not [event for event in rig.events if "zebra" in event[0]]
    await rig.agent.network.check(younger)
    await rig.agent.network.delete(older)
    await rig.settle()
    assert ports(rig) == {8080: "pod/default/ape", 9090: "pod/default/ape"}, "it is free now"


async def test_a_new_sandbox_of_the_pod_has_the_port_once_the_old_one_is_gone() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    old = await attach(rig, "web", HostPort(53, 53, "UDP"), container_id="old")
    new = await attach(rig, "web", HostPort(53, 53, "UDP"), container_id="new")
    await rig.agent.network.delete(old)
    await rig.settle()
    assert ports(rig) == {53: "pod/default/web"}
    ips = {ips for request, ips in rig.agent.network.attached if request is new}
    flushed = {key: found for allowed in rig.opener.flushed for key, found in allowed.items()}
    (target,) = flushed[Frontend("udp", ipaddress.ip_address("192.168.1.10"), 53)]
    assert str(target.ip) in next(iter(ips))


async def test_an_agent_that_starts_again_writes_nothing_and_keeps_who_has_the_port() -> None:
    rig = Rig()
    await rig.start(*cluster(1, 2))
    for name in ("zebra", "ape"):
        await attach(rig, name, *WEB, HostPort(53, 53, "UDP", "127.0.0.1"))
    before, attached = own_values(rig), rig.agent.network.attached
    await rig.agent.stop()
    rig.new_agent()
    await rig.start(attached=attached)
    await rig.settle()
    assert rig.written == 0
    assert own_values(rig) == before and ports(rig) == {8080: "pod/default/zebra"}


async def test_ports_that_somebody_takes_are_repaired() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await attach(rig, "web", *WEB, HostPort(53, 53, "UDP"))
    await rig.settle()
    before = set(map(str, own_values(rig)))
    rig.host.objects.nft.clear()
    rig.host.set_sysctl(LOCALNET, "0")
    rig.host.objects.foreign_commits += 1
    rig.opener.flushed.clear()
    for second in (1.0, 2.0):
        await rig.poll(second)
    assert set(map(str, own_values(rig))) == before and rig.host.objects.sysctls[LOCALNET] == "1"
    assert rig.opener.flushed, "connections may have begun meanwhile that go elsewhere"


async def test_blocks_of_another_family_change_the_ports() -> None:
    rig = Rig()
    (own,) = cluster(1)
    await rig.start(own)
    await attach(rig, "web", *WEB)
    spec = msgspec.structs.replace(own.spec, pod_cidrs=own.spec.pod_cidrs[1:])
    rig.put(msgspec.structs.replace(own, spec=spec))
    await rig.settle()
    assert {v.set for v in own_values(rig) if isinstance(v, Element)} == {"ports6", "hairpin6"}
    assert rig.host.objects.sysctls[LOCALNET] == "0"


async def test_host_ports_that_are_switched_off_lead_nowhere_and_the_pod_is_told() -> None:
    rig = Rig()
    rig.settings = msgspec.structs.replace(rig.settings, hostports=HostPortSettings(enabled=False))
    rig.new_agent()
    await rig.start(*cluster(1))
    await attach(rig, "plain")
    assert not rig.events
    await attach(rig, "web", *WEB, HostPort(53, 53, "UDP"))
    assert not own_values(rig) and rig.host.objects.sysctls[LOCALNET] == "0"
    why = "host ports are switched off in the settings of this network: 8080/tcp, 53/udp"
    assert rig.events == [("pod/default/web", "NotApplied", why)]


async def test_switching_them_off_removes_what_there_is() -> None:
    rig = Rig()
    await rig.start(*cluster(1))
    await attach(rig, "web", *WEB)
    attached = rig.agent.network.attached
    rig.settings = msgspec.structs.replace(rig.settings, hostports=HostPortSettings(enabled=False))
    rig.new_agent()
    await rig.start(attached=attached)
    assert not own_values(rig) and rig.host.objects.sysctls[LOCALNET] == "0"


async def test_whose_port_a_pod_takes_from_the_node_is_told() -> None:
    rig = Rig()
    rig.opener.listeners = [("tcp", 22, ipaddress.ip_address("0.0.0.0"))]
    await rig.start(*cluster(1))
    await attach(rig, "one", HostPort(22, 80))
    assert ports(rig) == {22: "pod/default/one"}
    assert [message for _, _, message in rig.events] == [
        "host port 22/tcp leads to the pod: what listens on it on the node (0.0.0.0) is not reached by it any more"
    ]
