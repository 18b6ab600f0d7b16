"""podplane's name servers on a real cluster: beside a DNS of others, in its place when told, and away again; no question is lost."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.dns.endpoints import MANAGED_BY, PODPLANE
from podplane.machine.own_name_server import NAME
from tests.cluster import questions
from tests.cluster.podplane import AGENTS, Installed
from tests.cluster.rig import DNS, HUB
from tests.engines import image
from tools import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
SYSTEM = "--namespace=kube-system"
LABELS = {"k8s-app": "kube-dns"}
THEIRS, OUTSIDE = "192.0.2.1", "192.0.2.2"
"""What the DNS of others says of each name, and what the server outside of the cluster says."""
WEB, ELSEWHERE = "web.default.svc.cluster.local", "www.example.test"
RATE = "200"
MOST_KIB = 60 * 1024
SCRIPT = str(Path(questions.__file__))


def object_(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


class Names:
    """The cluster, with a Service to look up, a client on each node, and a server outside."""

    def __init__(self, cluster: Installed, processes: contextlib.ExitStack) -> None:
        self.cluster, self.rig, self._processes = cluster, cluster.rig, processes
        self.begin(self.rig.hub.piped(sys.executable, SCRIPT, "serve", OUTSIDE))
        for node in self.rig.nodes:
            cluster.run(f"client-{node}", node, "pause")
        cluster.apply(object_("Service", "web", {"ports": [{"port": 80}]}))
        self.web = self.rig.get("service", "web")["spec"]["clusterIP"]
        ports = [{"name": f"dns{more}", "port": 53, "protocol": protocol} for more, protocol in (("", "UDP"), ("-tcp", "TCP"))]
        spec = {"clusterIP": DNS, "selector": LABELS, "ports": ports}
        cluster.apply(object_("Service", "kube-dns", spec, namespace="kube-system"))
        self.start_theirs()
        cluster.ready(*(f"client-{node}" for node in self.rig.nodes))

    def begin(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Wait until a script says that it listens, or was answered; it ends with the tests."""
        assert process.stdin is not None and process.stdout is not None
        self._processes.callback(process.communicate)
        assert process.stdout.readline() == "\n"
        return process

    def start_theirs(self) -> None:
        """The DNS of others: a pod that the Service selects."""
        container = {"name": "main", "image": image.NAME, "args": ["pause"], "imagePullPolicy": "Never"}
        spec = {"nodeName": "w1", "containers": [container], "terminationGracePeriodSeconds": 0}
        self.cluster.apply(object_("Pod", "coredns", spec, namespace="kube-system", labels=LABELS))
        self.cluster.kubectl(SYSTEM, "wait", "--for=condition=Ready", "--timeout=50s", "pod/coredns")
        ip = self.rig.get(SYSTEM, "pod", "coredns")["status"]["podIP"]
        self.begin(self.cluster.in_network_of("w1", ip, sys.executable, SCRIPT, "serve", THEIRS))

    @contextlib.contextmanager
    def asked(self, *names: str) -> Iterator[dict[str, Any]]:
        """Clients of both nodes ask as long as this is entered; what became of their questions is known then, by node."""
        clients = {}
        for node in self.rig.nodes:
            client = self.cluster.in_pod(node, f"client-{node}", sys.executable, SCRIPT, "ask", DNS, RATE, *names)
            clients[node] = self.begin(client)
        found: dict[str, Any] = {}
        try:
            yield found
        finally:
            found |= {node: json.loads(client.communicate(timeout=30)[0]) for node, client in clients.items()}

    def told(self, name: str) -> set[str]:
        """What clients of both nodes are told now."""
        with self.asked(name) as found:
            pass
        assert not any(one["failures"] for one in found.values()), found
        return {address for one in found.values() for address in one["told"][name]}

    def configure(self, **dns: Any) -> None:
        """Have agents with these settings of names; each was replaced when this returns."""
        text = (manifests.NAMES if dns else manifests.DEPLOY).read_text()
        if dns.get("take_over"):  # what helm makes of dns.takeOver
            text = text.replace("take_over: false", "take_over: true").replace("checksum/config: ", "checksum/config: other-")
        self.cluster.kubectl("apply", "--filename=-", stdin=text)
        self.cluster.rolled_out()

    def slices(self) -> list[str]:
        """Those by which nodes offer their servers: addresses that are ready."""
        items = self.rig.get(SYSTEM, "endpointslices", f"--selector={MANAGED_BY}={PODPLANE}")["items"]
        ready = [end for one in items for end in one["endpoints"] if end["conditions"]["ready"]]
        return sorted(address for end in ready for address in end["addresses"])

    def threads(self, node: str) -> list[Path]:
        """Those of the name server in the agent's process on a node, in its /proc."""
        tasks = (self.cluster.process(node) / "task").iterdir()
        return [one for one in tasks if (one / "comm").read_text().strip() == NAME]


@pytest.fixture(scope="module")
def names(cluster: Installed) -> Iterator[Names]:
    """Afterwards all is as before."""
    with contextlib.ExitStack() as processes:
        yield Names(cluster, processes)
        cluster.kubectl("delete", "--ignore-not-found", "pods", "--all", "--wait")
        cluster.kubectl("delete", "--ignore-not-found", "service", "web")
        cluster.kubectl(SYSTEM, "delete", "--ignore-not-found", "--wait", "service/kube-dns", "pod/coredns")


def lost(found: dict[str, Any]) -> dict[str, Any]:
    """What went wrong, by node."""
    assert all(one["asked"] > 100 for one in found.values()), found
    return {node: one["failures"] for node, one in found.items() if one["failures"]}


def test_a_dns_of_others_goes_on_until_podplane_is_told_to_take_over(names: Names) -> None:
    assert names.told(WEB) == {THEIRS}
    names.configure(take_over=False)
    assert names.told(WEB) == {THEIRS} and not names.slices()
    for node in names.rig.nodes:
        events = names.rig.get("events", f"--field-selector=involvedObject.name={node},involvedObject.kind=Node")["items"]
        assert any("dns.takeOver" in one["message"] for one in events), events
    with names.asked(WEB) as found:
        names.configure(take_over=True)
    assert not lost(found), found
    assert names.told(WEB) == {names.web}
    assert names.told(ELSEWHERE) == {OUTSIDE}, f"the kubelets' resolv.conf has {HUB}"
    assert len(names.slices()) == len(names.rig.nodes)


def test_the_server_has_no_capability_and_takes_little_memory(names: Names) -> None:
    for node in names.rig.nodes:
        (thread,) = names.threads(node)
        status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm")} == {0}
        assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")
        assert int(status["VmRSS"].split()[0]) < MOST_KIB, "of the agent and the name server"


def test_servers_tell_how_they_are_who_may_read_them(names: Names) -> None:
    said = names.rig.podplane("dns", "status", code=None)
    assert all(f"{node}     answers" in said for node in names.rig.nodes), said
    found = names.rig.podplane("cluster", "status", code=None)
    assert "all is well" in found and "ready endpoints" in found, found


def test_a_new_version_rolls_out_and_other_nodes_answer_meanwhile(names: Names) -> None:
    names.cluster.kubectl(SYSTEM, "delete", "pod", "coredns", "--wait")
    with names.asked(WEB) as found:
        names.cluster.kubectl(SYSTEM, "rollout", "restart", AGENTS)
        names.cluster.rolled_out()
    assert not lost(found), found
    assert {address for one in found.values() for address in one["told"][WEB]} == {names.web}


def test_without_podplane_s_the_dns_of_others_answers_as_before(names: Names) -> None:
    names.start_theirs()
    with names.asked(WEB) as found:
        names.configure()
    assert not lost(found), found
    assert names.told(WEB) == {THEIRS}
    assert not names.rig.get(SYSTEM, "endpointslices", f"--selector={MANAGED_BY}={PODPLANE}")["items"]
    for node, machine in names.rig.nodes.items():
        assert not names.threads(node)
        assert DNS not in machine("ip", "-oneline", "address") and "podplane-dns" not in machine("nft", "list", "tables")
