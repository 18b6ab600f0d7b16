"""`podplane agent` on a machine, with an API that has what a small cluster has: what it finds out, tells engines of, and follows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bench.agent_alone import name_servers
from bench.simulated_api import SimulatedApi, credentials, node
from podplane.apiserver.asgi import serve
from podplane.cni.client import PluginNetwork
from podplane.cni.network import Attached, Attachment
from podplane.cni.networks import CONFLIST
from podplane.kernel import link_kinds
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kubeapi.messages import Answer, Request, Response
from podplane.machine.lacking import lacking
from tests.kernel.cluster import Talk
from tests.kernel.test_foreign import run
from tests.kernel.test_machine import asked, shown_all

pytestmark = pytest.mark.kernel
KUBEADM = {"networking": {"podSubnet": "10.128.0.0/9", "serviceSubnet": "10.96.0.0/12"}}
UPLINK = """
ip link set lo up
ip link add eth0 type bridge; ip addr add 192.168.1.10/16 dev eth0; ip link set eth0 up
ip link add eth1 mtu 1400 type bridge; ip link set eth1 up; ip route add default via 192.168.0.1 dev eth0
"""
SECONDS = 60
KINDS = {"bridge": "", "veth": "", "vxlan": "id 1 dstport 4789", "gre": "external", "ip6gre": "external", "nobodys": ""}


class Cluster(SimulatedApi):
    """An API with a node without a block, one other node, and kubeadm's ConfigMap."""

    def __init__(self) -> None:
        super().__init__(1, 0, peers=1, own_pods=3)
        self.events: list[str] = []
        self.patches: list[str] = []
        self.changed("nodes", node(0) | {"spec": {}})

    async def handle(self, request: Request) -> Answer:
        if request.method == "GET" and request.path.endswith("/configmaps/kubeadm-config"):
            config = {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": json.dumps(KUBEADM)}}
            return Response(200, json.dumps(config).encode())
        if request.method == "POST" and request.path.endswith("/events"):
            event = json.loads(request.body or b"{}")
            event["metadata"]["uid"] = f"event-{len(self.events)}"
            self.events.append(json.dumps(event))
            return Response(201, json.dumps(event).encode())
        if request.method == "PATCH" and request.path.endswith("/nodes/node1"):
            self.patches.append((request.body or b"").decode())
        return await super().handle(request)


class Machine:
    """This network namespace, with an agent's process."""

    def __init__(self, folder: Path, api: Cluster, words: list[str]) -> None:
        self.api, self._words = api, words
        self._config = folder / "config"
        self.conflist = folder / "net.d" / CONFLIST
        self.network = PluginNetwork(folder / "run" / "cni.sock")
        self._workers = Workers(1)

    def allow(self, *networks: str) -> None:
        """Have agents that begin from now on pass over networks of the machine, and of its name servers."""
        self._config.write_text(
            json.dumps({"cni_conf_dir": str(self.conflist.parent), "allow_overlaps": [*name_servers(), *networks]})
        )

    async def dry_run(self) -> tuple[int | None, str]:
        """The exit status of what an agent says that it would do, and what it says."""
        words = [sys.executable, "-m", "podplane", *self._words, "--dry-run"]
        process = await asyncio.create_subprocess_exec(*words, env=os.environ, stdout=-1)
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    async def refused(self, content: dict[str, Any]) -> tuple[int | None, str]:
        """The exit status of an agent with this configuration, which it can't begin with, and what it says."""
        self._config.write_text(json.dumps(content))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "podplane", *self._words, env=os.environ, stderr=-1
        )
        _, said = await process.communicate()
        return process.returncode, said.decode()

    async def attach(self, name: str) -> tuple[Attachment, Attached]:
        """A pod."""
        request = Attachment(f"c-{name}", name, "default", name, NetworkNamespace.create(self._workers))
        return request, await self.network.add(request)


@contextlib.asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Machine]:
    """An agent, started with a configuration that names no network of the cluster."""
    api, listener = Cluster(), socket.create_server(("127.0.0.1", 0))
    certificates, kubeconfig = credentials(folder, *listener.getsockname())
    served = asyncio.create_task(serve(api.handle, [listener], certificates.certificate, certificates.key))
    words = ["agent", "--kubeconfig", str(kubeconfig), "--config", str(folder / "config"), "--node-name", "node1"]
    words += ["--run-dir", str(folder / "run")]
    found = Machine(folder, api, words)
    found.allow()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "podplane", *words, env=os.environ)
    try:
        yield found
    finally:
        process.terminate()
        await process.wait()
        served.cancel()
        await asyncio.wait([served])


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.05)


async def life(folder: Path) -> None:
    """What an agent does from a Node without a block to an uplink that is another link."""
    async with machine(folder) as here:
        await here.api.watched("nodes")
        assert not here.conflist.exists(), "no pod could be attached yet"
        here.api.changed("nodes", node(0))
        await until(here.conflist.exists)
        (pod, attached), (other, its) = await here.attach("own-0"), await here.attach("own-1")
        inside = run("nft list set inet podplane-nodes inside4")
        assert "10.128.0.0/9" in inside, "by kubeadm's ConfigMap"
        assert "dev eth0" in run("ip route show 10.128.1.0/24")
        talk = Talk(pod.netns, (its.ips[0], 80), other.netns, (its.ips[0], 80))
        outward = Talk(CurrentNamespace(), (attached.ips[0], 81), pod.netns, (attached.ips[0], 81))
        run("ip addr del 192.168.1.10/16 dev eth0; ip addr add 192.168.1.10/16 dev eth1")
        await until(lambda: "dev eth1" in run("ip route show 10.128.1.0/24"))
        for one in (talk, outward):
            one.exchange()
            one.close()
        _, late = await here.attach("own-2")
        assert (attached.mtu, late.mtu) == (1500, 1400), (
            "by the link that leads to other nodes, not by that of the default route"
        )
        await here.network.check(pod)
        run("ip link set eth1 mtu 1300")
        await until(lambda: "mtu 1300 " in run("ip -o link show cbr0"))
        await until(lambda: any('"podplane.dev/underlay-mtu":"1300"' in said for said in here.api.patches))
        run("ip addr del 192.168.1.10/16 dev eth1")
        await until(lambda: any("goes on with uplink eth1" in event for event in here.api.events))
    assert here.conflist.exists(), "pods could neither start nor end without it"


DROPS = "nft add table inet fw; nft 'add chain inet fw f { type filter hook forward priority 0; policy drop; }'"


async def hindered(folder: Path) -> None:
    """What an agent does on a machine that has an address of its networks, until that is gone."""
    line = "10.128.0.0/9, a network of pods, overlaps 10.200.0.0/24, the network of a link of this machine (eth1)"
    before = shown_all()
    async with machine(folder) as here:
        here.api.changed("nodes", node(0))
        await until(lambda: any(line in event and '"Node"' in event for event in here.api.events))
        assert [(await asyncio.to_thread(asked, path))[0] for path in ("livez", "readyz", "status")] == [200, 503, 503]
        assert line in (await asyncio.to_thread(asked, "readyz"))[1] and line in (await asyncio.to_thread(asked, "status"))[1]
        code, said = await here.dry_run()
        assert code == 1 and f"refused: {line}" in said and "would " not in said, said
        here.allow("10.200.0.0/24")
        code, said = await here.dry_run()
        assert code == 0 and "Node node1: 192.168.1.10 on eth0, blocks 10.128.0.0/24\n" in said, said
        for line in (
            "sysctl net.ipv4.ip_forward to 1",
            "link cbr0",
            "route 10.128.1.0/24 via 192.168.100.1 on eth0",
            "4 x nft table",
        ):
            assert f" {line}" in said, said
        assert "firewall" not in said, said
        if shutil.which("nft") is not None:
            run(DROPS)
            code, said = await here.dry_run()
            assert (
                code == 0 and "firewall: chain f of table inet fw (policy drop) drops packets between pods of this node" in said
            )
            run("nft delete table inet fw")
        code, said = await here.refused({"network": {"cluster_cidrs": ["10.128.0.0/33"]}})
        assert code == 2 and "10.128.0.0/33" in said and "Traceback" not in said
        last = [event for event in here.api.events if "the agent does not start: " in event]
        assert len(last) == 1 and "10.128.0.0/33" in last[0] and '"uid": "node1"' in last[0]
        here.allow()
        assert shown_all() == before and not here.conflist.exists()
        run("ip addr del 10.200.0.1/24 dev eth1")
        await until(here.conflist.exists)
        await until(
            lambda: any("podplane.dev/machine" in said and '\\"ip\\":\\"192.168.1.10\\"' in said for said in here.api.patches)
        )


def test_what_is_in_the_way_of_an_agent_is_told_and_nothing_is_changed_before_it_is_gone(tmp_path: Path) -> None:
    run("cd /proc/sys/net/ipv6/conf/default; echo 0 > accept_dad; echo 0 > accept_ra; echo 1 > addr_gen_mode")
    run(f"{UPLINK}\nip addr add 10.200.0.1/24 dev eth1")
    asyncio.run(hindered(tmp_path))


def can_make(kind: str) -> bool:
    """Can `ip` make a link of this kind?"""
    made = run(f"ip link add x0 type {kind} {KINDS[kind]} 2>/dev/null && ip link del x0 && echo yes || true")
    return "yes" in made


def test_what_a_kernel_lacks_is_found_without_making_a_link() -> None:
    unknown = [kind for kind in sorted(KINDS) if not can_make(kind)]
    before = shown_all()
    assert link_kinds.unknown(CurrentNamespace(), KINDS) == unknown and "nobodys" in unknown
    assert lacking(CurrentNamespace()) == []
    assert shown_all() == before


def test_an_agent_finds_out_its_networks_tells_engines_of_itself_and_follows_its_uplink(tmp_path: Path) -> None:
    run(UPLINK)
    asyncio.run(life(tmp_path))
