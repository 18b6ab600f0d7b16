"""Debian's plugins, called for a further interface: what one of them leaves behind when it fails is no obstacle to the next try."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from podplane.agent.delegation import Plugins
from podplane.cni.additional import Chain, Selection, network
from podplane.cni.network import Attachment, NetworkError
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.opener import has_link
from tests.kernel.test_cni_plugin import ip
from tests.kernel.test_cnitool import with_debians

pytestmark = pytest.mark.kernel
CONFIG = {
    "cniVersion": "1.0.0",
    "name": "blue",
    "type": "bridge",
    "bridge": "blue0",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]], "dataDir": "/run/blue"},
}
NET1 = Selection("default", "blue", "net1")


def own_run() -> None:
    """A /run of the test's own, where host-local keeps what it knows."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)


def blue() -> Chain:
    found = network("default/blue", json.dumps(CONFIG))
    assert isinstance(found, Chain)
    return found


async def _made_anew(folder: Path) -> str:
    """The addresses of an interface whose plugin failed twice, and then did not."""
    with_debians(folder, "bridge")
    workers = Workers(1)
    pod = NetworkNamespace.create(workers)
    plugins, request = Plugins(folder / "kept", (str(folder),)), Attachment("c", "uid", "default", "a", pod)
    for _ in range(2):
        with pytest.raises(NetworkError, match="host-local"):
            await plugins.add(blue(), NET1, request)
        assert not has_link(pod, "net1"), "bridge makes it, asks for an address, and does not undo it without host-local"
    with_debians(folder, "host-local")
    got = await plugins.add(blue(), NET1, request)
    assert got.ips == ("10.9.0.2",)
    addresses = ip(pod, "address", "show", "dev", "net1")
    await plugins.delete("c")
    pod.close()
    workers.close()
    return addresses


def test_what_bridge_leaves_behind_without_its_ipam_plugin_is_removed(tmp_path: Path) -> None:
    own_run()
    assert "inet 10.9.0.2/24 " in asyncio.run(_made_anew(tmp_path))


async def _somebody_elses(folder: Path) -> bool:
    """Is an interface of somebody else there after a plugin was refused its name?"""
    with_debians(folder, "bridge", "host-local")
    workers = Workers(1)
    pod = NetworkNamespace.create(workers)
    ip(pod, "link", "add", "net1", "type", "bridge")
    plugins = Plugins(folder / "kept", (str(folder),))
    with pytest.raises(NetworkError, match="net1"):
        await plugins.add(blue(), NET1, Attachment("c", "uid", "default", "a", pod))
    left = has_link(pod, "net1")
    pod.close()
    workers.close()
    return left


def test_an_interface_that_was_there_before_stays(tmp_path: Path) -> None:
    own_run()
    assert asyncio.run(_somebody_elses(tmp_path))
