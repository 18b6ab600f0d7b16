"""Which tunnels make their checksums in software: the table at its edges, the setting, and what a node's agent makes of both."""

from __future__ import annotations

import logging

import msgspec
import pytest

from podplane.agent.agent import Agent
from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.model.config import NetworkConfig
from podplane.routes import gre, offload, vxlan, ways
from podplane.state.network import SoftwareChecksum
from podplane.state.operations import Operation
from tests.plans import agent_settings, config, node, uplink
from tests.unit.agent.rig import DUAL, caches_of

DEVICES = set(vxlan.DEVICES.values())
SAID = "{}; where that is not so, `tunnel-offload: enabled` has it on"


def settings(kernel: str, driver: str = "vmxnet3", **fields: object) -> NetworkConfig:
    """Those of a node with this kernel and driver of its uplink."""
    return msgspec.structs.replace(config(DUAL), kernel=kernel, uplink_driver=driver, **fields)


@pytest.mark.parametrize(
    ("kernel", "usual", "unusual"),
    [
        ("4.17.19", False, False),
        ("4.18.0-240.el8.x86_64", True, True),
        ("5.4.0-42-generic", True, True),
        ("5.10.0-8-amd64", True, True),
        ("5.10.52", True, True),
        ("5.10.53", True, False),
        ("5.10.240", True, False),
        ("5.11.0", True, True),
        ("5.13.4", True, True),
        ("5.13.5", True, False),
        ("5.14.0-70.el9.x86_64", True, False),
        ("6.18", True, False),
        ("10.0.0", True, False),
        ("", False, False),
        ("unknown", False, False),
    ],
)
def test_vxlan_over_vmxnet3_is_without_offload_on_the_kernels_of_the_table(kernel: str, usual: bool, unusual: bool) -> None:
    for port in (4789, 8472):
        assert offload.why_not("vxlan", settings(kernel, vxlan_port=port)) == (SAID.format(offload.DROPPED) if usual else "")
    assert offload.why_not("vxlan", settings(kernel, vxlan_port=4790)) == (SAID.format(offload.UNUSUAL) if unusual else "")
    for kind in gre.KINDS.values():
        assert offload.why_not(kind, settings(kernel)) == "", "vmxnet3 makes no inner checksums of GRE"


@pytest.mark.parametrize("driver", ["veth", "virtio_net", "mlx5_core", "bonding", "vmxnet", ""])
def test_other_drivers_have_offload(driver: str) -> None:
    assert (
        offload.why_not("vxlan", settings("5.10.0", driver))
        == offload.why_not("vxlan", settings("5.10.0", driver, vxlan_port=1))
        == ""
    )


def test_the_setting_has_the_last_word() -> None:
    for kind in ("vxlan", "gre", "ip6gre"):
        assert offload.why_not(kind, settings("5.10.0", tunnel_offload="enabled")) == ""
        assert offload.why_not(kind, settings("6.18.0", "veth", tunnel_offload="disabled")) == "the settings say so"


def test_each_row_says_where_its_fault_is_told_of() -> None:
    for one in offload.FAULTS:
        assert "#" in one.why or "Linux " in one.why
        assert one.until is None or one.since < one.until


def test_a_setting_that_there_is_not_is_refused() -> None:
    assert [offload.choice(text) for text in ("auto", "enabled", "disabled")] == ["auto", "enabled", "disabled"]
    with pytest.raises(ValueError, match="there is no 'off': choose one of auto, enabled, disabled"):
        offload.choice("off")


@pytest.mark.parametrize(
    ("backend", "kinds"), [("host-gw", []), ("vxlan", ["vxlan"]), ("gre", ["gre", "ip6gre"]), ("auto", ["vxlan"])]
)
def test_the_tunnels_of_the_backend_are_told_of(backend: str, kinds: list[str]) -> None:
    found = ways.without_offload(settings("6.18.0", "veth", backend=backend, tunnel_offload="disabled"))
    assert found == [f"{kind}: the settings say so" for kind in kinds]


@pytest.mark.parametrize("backend", [vxlan.BACKEND, gre.BACKEND])
def test_a_node_wants_it_of_each_of_its_tunnels(backend: object) -> None:
    assert isinstance(backend, type(vxlan.BACKEND))
    on, off = (settings("6.18.0", "veth", tunnel_offload=choice) for choice in ("auto", "disabled"))
    wanted = backend.plan_node(node(1, DUAL), off)
    assert {one.link for one in wanted.values() if isinstance(one, SoftwareChecksum)} == set(backend.devices)
    assert {identity: one for identity, one in wanted.items() if not isinstance(one, SoftwareChecksum)} == backend.plan_node(
        node(1, DUAL), on
    )


class Machine:
    """A machine with the fake kernel and this driver of its uplink, and agents on it, one after the other."""

    def __init__(self, driver: str) -> None:
        self.opener = FakeOpener()
        self.host: FakeNamespace = self.opener.namespace()
        self.host.objects.drivers["eth0"] = driver
        Kernel(self.host, self.opener).apply([Operation(None, value) for value in uplink(DUAL).values()])
        self.now = 0.0

    async def agent(self, **fields: object) -> Agent:
        """Another one, with vxlan and these settings."""
        own = agent_settings(DUAL, backend="vxlan", **fields)
        kernel = Kernel(self.host, self.opener)
        made = Agent("node1", own, kernel, caches_of(node(1, DUAL), node(2, DUAL)), clock=lambda: self.now)
        await made.start()
        assert not made.ledger.refused and not made.ledger.deviations
        return made

    @property
    def without(self) -> set[str]:
        """The links whose checksums are made in software."""
        return self.host.objects.software_checksums


async def test_an_agent_acts_on_the_driver_of_its_uplink_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        machine = Machine("vmxnet3")
        agent = await machine.agent()
    assert machine.without == DEVICES
    assert agent.without_offload == ["vxlan: " + SAID.format(offload.DROPPED)]
    assert [record.getMessage() for record in caplog.records if "offload" in record.getMessage()] == [
        "offload node=node1 vxlan: " + SAID.format(offload.DROPPED)
    ]
    assert machine.host.objects.drivers == {"eth0": "vmxnet3"} and "eth0" not in machine.without


async def test_an_agent_leaves_it_on_elsewhere() -> None:
    machine = Machine("veth")
    agent = await machine.agent()
    assert machine.without == set() and agent.without_offload == []


async def test_the_next_agent_undoes_what_is_not_wanted_any_more() -> None:
    machine = Machine("veth")
    await machine.agent(tunnel_offload="disabled")
    assert machine.without == DEVICES
    agent = await machine.agent()
    await agent.idle()
    assert machine.without == set()


async def test_it_changes_while_the_agent_runs() -> None:
    machine = Machine("veth")
    agent = await machine.agent()
    for choice, expected in (("disabled", DEVICES), ("enabled", set()), ("disabled", DEVICES)):
        await agent.set_routes(msgspec.structs.replace(agent.config, tunnel_offload=choice))
        await agent.idle()
        assert machine.without == expected
    await agent.set_routes(msgspec.structs.replace(agent.config, backend="host-gw"))
    await agent.idle()
    assert machine.without == set(), "it went with its links"
    assert not [one for one in agent.ledger.deviations if one[0] == "SoftwareChecksum"]


@pytest.mark.parametrize("choice", ["auto", "disabled"])
async def test_what_somebody_else_switched_is_repaired_by_the_next_audit(choice: str) -> None:
    machine = Machine("veth")
    agent = await machine.agent(tunnel_offload=choice)
    expected = set(machine.without)
    machine.without.symmetric_difference_update(["podplane-vxlan4"])
    assert machine.without != expected
    machine.now += 1000
    await agent.poll()
    await agent.idle()
    assert machine.without == expected


async def test_a_tunnel_that_somebody_removed_has_it_again() -> None:
    machine = Machine("veth")
    agent = await machine.agent(tunnel_offload="disabled")
    machine.host.objects.delete_link("podplane-vxlan6")
    agent.watcher.take_notifications()
    await agent.poll()
    await agent.idle()
    assert machine.without == DEVICES and not agent.ledger.deviations, "at once, without waiting for the next audit"
