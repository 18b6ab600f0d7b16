"""The CNI project's own tool as the engine: podplane alone, and before Debian's plugins in a chain."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from podplane.cni.networks import configuration
from podplane.kernel.namespace import NetworkNamespace, Workers
from tests.kernel.test_cni_plugin import ip, node1, path_of
from tests.unit.cni.programs import clean, words_of

pytestmark = pytest.mark.kernel
PLACES = (*filter(None, os.environ.get("CNI_PATH", "").split(":")), "/usr/lib/cni", "/opt/cni/bin")
NETWORK: dict[str, Any] = json.loads(configuration())


def cnitool() -> str:
    found = shutil.which("cnitool")
    if found is None:
        pytest.skip("cnitool is not on the PATH: go install github.com/containernetworking/cni/cnitool@latest")
    return found


def with_debians(folder: Path, *names: str) -> None:
    """Have these plugins of Debian's containernetworking-plugins among those of the folder."""
    for name in names:
        found = next((path for place in PLACES if (path := Path(place, name)).exists()), None)
        if found is None:
            pytest.skip(f"the plugin {name} is not installed: containernetworking-plugins has it")
        (folder / name).symlink_to(found)


class Tool:
    """cnitool, with networks and plugins of one folder. It keeps results in /var/lib, `tuning` in /run: they are the test's own here."""

    def __init__(self, folder: Path, network: Mapping[str, Any]) -> None:
        for path in ("/var/lib", "/run"):
            subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
        self._folder, self._program = folder, cnitool()
        self.network(network)

    def network(self, network: Mapping[str, Any]) -> None:
        """From now on the network is this."""
        (self._folder / "10-podplane.conflist").write_text(json.dumps(network))

    async def __call__(self, verb: str, netns: NetworkNamespace, **capabilities: Any) -> tuple[int, str]:
        """Exit status, and what it prints."""
        env = {"NETCONFPATH": str(self._folder), "CNI_PATH": str(self._folder), "CAP_ARGS": json.dumps(capabilities)}
        env |= {"PODPLANE_CNI_SOCKET": str(self._folder / "cni.sock"), "PATH": os.environ["PATH"]}
        words = [self._program, verb, "podplane", path_of(netns)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=env)
        stdout, _ = await process.communicate()
        return process.returncode or 0, stdout.decode()


async def alone(folder: Path) -> None:
    workers = Workers(1)
    pod, tool = NetworkNamespace.create(workers), Tool(folder, NETWORK)
    assert (await tool("status", pod))[0] == 1, "there is no agent yet"
    async with node1(folder / "cni.sock", workers) as agent:
        assert await tool("status", pod) == (0, "")
        status, text = await tool("add", pod, ips=["10.244.1.7"])
        result = json.loads(text)
        assert (status, result["cniVersion"], result["ips"][0]["address"]) == (0, "1.1.0", "10.244.1.7/32")
        assert await tool("check", pod) == (0, "")
        ip(pod, *["addr", "del", "10.244.1.7/32", "dev", "eth0"])
        status, text = await tool("check", pod)
        assert status == 1 and "address 10.244.1.7/32 on eth0 in" in text and "is missing" in text
        assert await tool("del", pod) == (0, "")
        assert await tool("del", pod) == (0, "")
        assert not agent.network.attachments()
        assert (await tool("add", pod))[0] == 0
        assert await tool("gc", pod) == (0, ""), "it detaches what it knows, and has the plugin do the rest"
        assert not agent.network.attachments() and "eth0" not in ip(pod, "link")
    workers.close()


def test_cnitool_attaches_checks_and_detaches(tmp_path: Path) -> None:
    cnitool()
    words_of("c", tmp_path)
    asyncio.run(alone(tmp_path))
    clean()


def printed(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


async def chained(folder: Path) -> None:
    tuning = {"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}, "capabilities": {"mac": True}}
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = NETWORK | {"cniVersions": [], "plugins": [{"type": "podplane-cni"}, tuning, bandwidth, portmap]}
    asks: dict[str, Any] = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    asks["bandwidth"] = {"ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 0, "egressBurst": 0}
    workers = Workers(1)
    pod, tool = NetworkNamespace.create(workers), Tool(folder, network)
    async with node1(folder / "cni.sock", workers) as agent:
        status, text = await tool("add", pod, **asks)
        result = json.loads(text)
        assert (status, result["ips"][0]["address"], result["interfaces"][1]["name"]) == (0, "10.244.1.2/32", "eth0")
        assert printed("nsenter", f"--net={path_of(pod)}", "cat", "/proc/sys/net/core/somaxconn") == "500\n"
        assert "--to-destination 10.244.1.2:80" in printed("iptables", "-t", "nat", "-S")
        assert f"tbf 1: dev {result['interfaces'][0]['name']} root" in printed("tc", "qdisc")
        tool.network(network | {"plugins": network["plugins"][:-1]})  # portmap 1.1.1 looks for its rules in ip6tables, too
        assert await tool("check", pod, **asks) == (0, "")
        assert "mtu 1400" in ip(pod, "link", "show", "eth0")
        tool.network(network)
        assert await tool("del", pod, **asks) == (0, "")
        assert "10.244.1.2" not in printed("iptables", "-t", "nat", "-S") and not agent.network.attachments()
    workers.close()


def test_debians_plugins_follow_ours(tmp_path: Path) -> None:
    cnitool()
    with_debians(tmp_path, "tuning", "bandwidth", "portmap")
    words_of("c", tmp_path)
    asyncio.run(chained(tmp_path))
    clean()
