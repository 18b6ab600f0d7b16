"""An agent's process that starts while the API is away, after one that knew the cluster: packets, pods and policies are as before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.agent.caches import KEPT, POLICIES
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kubeapi.access import from_kubeconfig
from podplane.machine.known import KnownCluster, Whose
from tests.kernel.test_cni_plugin import Engine
from tests.kernel.test_foreign import MACHINE, VERSIONS, run
from tests.plans import node
from tests.unit.cni import programs
from tests.unit.cni.programs import Ended, words_of

pytestmark = pytest.mark.kernel
CONFIG = {"network": {"cluster_cidrs": ["10.244.0.0/16", "fd00:10:244::/48"], "service_cidrs": ["10.96.0.0/16"]}}
DENY = {"metadata": {"name": "deny", "namespace": "default", "uid": "p"}, "spec": {"podSelector": {}, "ingress": []}}
WEB = {"metadata": {"name": "web", "namespace": "default", "uid": "w"}, "spec": {"nodeName": "node1"}}
ARGUMENTS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=w"


def prepare(folder: Path) -> None:
    """Configuration for an agent whose API is nowhere, and what one before it knew of the cluster."""
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    (folder / "config").write_text(json.dumps(CONFIG))
    (folder / "run").mkdir(mode=0o700)
    kept = KnownCluster(folder / "run", Whose.of("node1", from_kubeconfig(folder / "kubeconfig")), KEPT)
    kept.begin()
    for number in (1, 2):
        kept.put("nodes", f"node{number}", msgspec.json.encode(node(number, VERSIONS)))
    kept.put(POLICIES, "default/deny", msgspec.json.encode(DENY))
    kept.put("pods", "default/web", msgspec.json.encode(WEB))
    for resource in KEPT:
        kept.listed(resource)
    kept.close()


@contextlib.contextmanager
def running(folder: Path, end: signal.Signals) -> Iterator[dict[str, Any]]:
    """An agent's process; what it says that its start did. In the end it gets this signal."""
    words = ["agent", "--kubeconfig", str(folder / "kubeconfig"), "--config", str(folder / "config"), "--node-name", "node1"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        (folder / "n").unlink(missing_ok=True)
        manager.bind(str(folder / "n"))
        manager.settimeout(60)
        agent = subprocess.Popen(
            [sys.executable, "-m", "podplane", *words, "--run-dir", str(folder / "run")],
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "n")},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            said = ""
            while "READY=1" not in said:
                said = manager.recv(4000).decode()
            yield json.loads(
                next(line.partition("=")[2] for line in said.split("\n") if line.startswith("X_PODPLANE_STARTED="))
            )
        finally:
            agent.send_signal(end)
            _, errors = agent.communicate(timeout=60)
        assert "the API is away: it begins with what was known" in errors and "Traceback" not in errors, errors


async def pods_come_and_go(words: list[str], folder: Path) -> None:
    workers = Workers(1)
    engine = Engine(words, folder / "run" / "cni.sock", workers)
    first, other = engine.new_namespace(), engine.new_namespace()

    async def call(verb: str, container: str, netns: NetworkNamespace | None, **fields: Any) -> Ended:
        return await engine.call(verb, container, netns, arguments=ARGUMENTS, **fields)

    with running(folder, signal.SIGKILL) as started:
        assert started["changes"] and not started["refused"]
        assert "10.244.2.0/24 via 192.168.1.11" in run("ip route")
        added = await call("ADD", "c1", first)
        assert added.status == 0, added
    tables = run("nft list table inet podplane-policy")
    assert added.output["ips"][0]["address"] == "10.244.1.2/32" and "10.244.1.2" in tables
    with running(folder, signal.SIGTERM) as started:
        assert (started["changes"], started["refused"]) == (0, []), "what the kernel has is what is known"
        assert await call("CHECK", "c1", first, prevResult=added.output) == Ended(0, b"", b"")
        second = await call("ADD", "c2", other)
        assert second.output["ips"][0]["address"] == "10.244.1.3/32", "no address is given twice"
        for container in ("c1", "c2"):
            assert (await call("DEL", container, None)).status == 0
    assert "10.244.1.2" not in run("nft list ruleset") and "10.244.2.0/24 via 192.168.1.11" in run("ip route")
    workers.close()


def test_pods_come_and_go_with_the_policies_that_were_known_last(tmp_path: Path) -> None:
    run(MACHINE)
    prepare(tmp_path)
    asyncio.run(pods_come_and_go(words_of("c", tmp_path), tmp_path))
    programs.clean()
