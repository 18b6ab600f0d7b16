"""CHECK finds each fault that somebody plants, and says which: by podplane-cni as an engine runs it, of a pod in the kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from podplane.cni import tuning
from podplane.kernel.namespace import CurrentNamespace, Workers
from podplane.pods.plan import veth_name
from tests.kernel.test_cni_plugin import Engine, ip, node1
from tests.kernel.test_foreign import run
from tests.unit.cni import programs
from tests.unit.cni.programs import Ended, words_of

pytestmark = pytest.mark.kernel
INSIDE = (
    ("addr del {ip}/32 dev eth0", "address {ip}/32 on eth0 in pod/{id} is missing"),
    ("addr del {ip6}/128 dev eth0", "address {ip6}/128 on eth0 in pod/{id} is missing"),
    ("link set eth0 down", "link eth0 in pod/{id} has up off, not on"),
    ("link set lo down", "link lo in pod/{id} has up off, not on"),
    ("route del default", "route 0.0.0.0/0 via 10.244.1.1 on eth0 in pod/{id} is missing"),
    ("-6 route del default", "route ::/0 via fd00:10:244:1::1 on eth0 in pod/{id} is missing"),
    ("link set eth0 mtu 1400", "link eth0 in pod/{id} has mtu 1400, not 1500"),
    ("link set eth0 mtu 1600", "link eth0 in pod/{id} has mtu 1600, not 1500"),
    ("neigh del 10.244.1.1 dev eth0", "neighbour 10.244.1.1 on eth0 in pod/{id} is missing"),
    ("link del eth0", "link eth0 in pod/{id} is missing"),
)
ON_THE_NODE = (
    ("ip link set {veth} down", "link {veth} has up off, not on"),
    ("ip link set {veth} mtu 1400", "link {veth} has mtu 1400, not 1500"),
    ("ip route del {ip}", "route {ip}/32 on cbr0 is missing"),
    ("ip -6 route del {ip6}", "route {ip6}/128 on cbr0 is missing"),
    (
        "nft delete element bridge podplane-pods macs4 {{ {ip} }}",
        "nft element bridge podplane-pods macs4 {{ {ip} }} is missing",
    ),
    ("ip link set cbr0 down", "link cbr0 has up off, not on"),
    ("nft flush chain inet podplane-nodes postrouting", "nft chain inet podplane-nodes postrouting has other rules"),
)
"""What pods of the node need is named, too; the last fault is not mended for a next pod."""


async def faults(words: list[str], folder: Path) -> None:
    workers = Workers(1)
    engine = Engine(words, folder / "cni.sock", workers)
    async with node1(folder / "cni.sock", workers):
        planted = [(True, *one) for one in INSIDE] + [(False, *one) for one in ON_THE_NODE]
        for number, (is_inside, command, said) in enumerate(planted):
            pod, container = engine.new_namespace(), f"c{number}"
            version = ("1.1.0", "1.0.0")[number % 2]
            result = (await engine.call("ADD", container, pod, version)).output
            if not number:
                assert await engine.call("CHECK", container, pod, version, prevResult=result) == Ended(0, b"", b"")
            address, address6 = (one["address"].partition("/")[0] for one in result["ips"])
            names = {"ip": address, "ip6": address6, "id": container, "veth": veth_name(container, "eth0")}
            if is_inside:
                ip(pod, *command.format(**names).split())
            else:
                run(command.format(**names))
            checked = await engine.call("CHECK", container, pod, version, prevResult=result)
            assert (checked.status, checked.output["code"]) == (1, 102), (command, checked)
            assert said.format(**names) in checked.output["msg"], (command, checked.output)
            assert (await engine.call("DEL", container, None)).status == 0
    workers.close()


def test_each_planted_fault_is_found_and_named(tmp_path: Path) -> None:
    asyncio.run(faults(words_of("c", tmp_path), tmp_path))
    programs.clean()


async def tuned(words: list[str], folder: Path) -> None:
    workers = Workers(1)
    engine = Engine(words, folder / "cni.sock", workers)
    async with node1(folder / "cni.sock", workers):
        pod = engine.new_namespace()
        result = (await engine.call("ADD", "c1", pod, "1.0.0")).output
        ip(pod, *["link", "set", "eth0", "mtu", "1400"])
        faulty = await engine.call("CHECK", "c1", pod, "1.0.0", prevResult=result)
        assert "has mtu 1400, not 1500" in faulty.output["msg"]
        (folder / "c1_eth0.json").write_text('{"mtu": 1500}')
        assert await engine.call("CHECK", "c1", pod, "1.0.0", prevResult=result) == Ended(0, b"", b"")
        ip(CurrentNamespace(), "link", "set", veth_name("c1", "eth0"), "mtu", "1400")
        assert (await engine.call("CHECK", "c1", pod, "1.0.0", prevResult=result)).output["code"] == 102
    workers.close()


def test_the_mtu_that_tuning_has_set_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    asyncio.run(tuned(words_of("c", tmp_path), tmp_path))
    programs.clean()
