"""`podplane controllers` beside an API server that is a process of its own: two of them, of which one leads."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from podplane.controllers.leadership import LEASES, NAME, NAMESPACE
from podplane.kubeapi.access import from_kubeconfig
from podplane.kubeapi.http import HttpClient
from podplane.machine import rbac
from tests.e2e import control_plane
from tests.e2e.conftest import COMMAND, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("controllers")]
LEASE_SECONDS, TAKEOVER_SECONDS = 3, 15.0
NAMES = ("controllers-a", "controllers-b")
POOLS, ADDRESSES = "loadbalancerpools.podplane.dev", "192.0.2.0/28"


class Rig:
    """The API server, the processes of controllers, and what they have done."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self._stack = folder, stack
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = one.getsockname()[1]
        self.server = self.serve()
        self.processes = {name: self.start(name) for name in NAMES}

    def serve(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "tests.e2e.control_plane", str(self.folder), str(self.port), *NAMES]
        process = self._stack.enter_context(ended(subprocess.Popen(words)))
        until(lambda: (self.folder / control_plane.READY).exists() and self.answers())
        return process

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def start(self, name: str) -> subprocess.Popen[bytes]:
        config = self.folder / f"{name}.yaml"
        settings = {"lease_seconds": LEASE_SECONDS, "health_port": 0, "node_blocks": {"cidrs": ["10.244.0.0/16"]}}
        config.write_text(json.dumps(settings))
        words = [*COMMAND, "controllers", "--kubeconfig", str(self.folder / f"{name}.kubeconfig"), "--config", str(config)]
        return self._stack.enter_context(ended(subprocess.Popen(words)))

    @contextlib.contextmanager
    def api(self) -> Iterator[HttpClient]:
        client = HttpClient(from_kubeconfig(self.folder / "secret.kubeconfig"))
        try:
            yield client
        finally:
            client.close()

    def objects(self, resource: str) -> list[dict[str, Any]]:
        with self.api() as api:
            return api.objects(resource)

    def create(self, resource: str, name: str, **fields: Any) -> None:
        with self.api() as api:
            api.create(resource, "default" if resource == "services" else "", {"metadata": {"name": name}, **fields})

    def node(self, name: str, *blocks: str) -> None:
        self.create("nodes", name, spec={"podCIDRs": blocks} if blocks else {})

    def balance(self, name: str) -> None:
        self.create("services", name, spec={"type": "LoadBalancer", "ports": [{"port": 80}]})

    def pool(self) -> Any:
        with self.api() as api:
            return api.get(POOLS, "", "p")

    def set_pool(self, *addresses: str) -> None:
        with self.api() as api:
            api.patch(POOLS, "", "p", {"spec": {"addresses": addresses}})

    def blocks(self) -> dict[str, list[str]]:
        return {one["metadata"]["name"]: one["spec"].get("podCIDRs", []) for one in self.objects("nodes")}

    def addresses(self) -> dict[str, list[str]]:
        return {
            one["metadata"]["name"]: [ingress["ip"] for ingress in one["status"]["loadBalancer"].get("ingress", ())]
            for one in self.objects("services")
        }

    def is_done(self) -> bool:
        """Has each node a block, and each load balancer an address?"""
        found = [*self.blocks().values(), *self.addresses().values()]
        assert not any(set(one) & set(other) for one, other in combinations(found, 2)), "somebody has what another one has"
        return all(found)

    def leader(self) -> str:
        """The user who renewed the Lease last."""
        renewals = [one for one in self.audited() if one["verb"] != "get" and one["objectRef"]["resource"] == "leases"]
        return str(renewals[-1]["user"]["username"]).rpartition(":")[2] if renewals else ""

    def audited(self) -> list[dict[str, Any]]:
        lines = (self.folder / control_plane.AUDIT).read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["user"]["username"].endswith(NAMES) and "objectRef" in one]

    def pair(self) -> tuple[str, str]:
        """(the leader, the one that stands by)."""
        until(lambda: self.leader() != "", 20)
        leader = self.leader()
        return leader, next(name for name in NAMES if name != leader)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Killed, if it is still there then."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with contextlib.ExitStack() as stack:
        found = Rig(tmp_path_factory.mktemp("controllers"), stack)
        found.create(POOLS, "p", spec={"addresses": [ADDRESSES]})
        yield found


def test_nodes_get_blocks_and_load_balancers_addresses(rig: Rig) -> None:
    for name in ("n1", "n2"):
        rig.node(name)
        rig.balance(f"web-{name}")
    until(rig.is_done)
    assert rig.blocks() == {"n1": ["10.244.0.0/24"], "n2": ["10.244.1.0/24"]}
    assert rig.addresses() == {"web-n1": ["192.0.2.0"], "web-n2": ["192.0.2.1"]}


def test_who_is_killed_is_followed_in_time(rig: Rig) -> None:
    leader, other = rig.pair()
    rig.processes[leader].kill()
    rig.processes[leader].wait()
    began = time.monotonic()
    rig.node("n3")
    rig.balance("web-n3")
    until(rig.is_done, TAKEOVER_SECONDS)
    assert rig.leader() == other and time.monotonic() - began < TAKEOVER_SECONDS
    rig.processes[leader] = rig.start(leader)


def test_who_was_stopped_writes_nothing_once_another_one_leads(rig: Rig) -> None:
    leader, other = rig.pair()
    rig.processes[leader].send_signal(signal.SIGSTOP)
    rig.balance("web-stopped")
    try:
        until(lambda: rig.leader() == other and rig.is_done(), TAKEOVER_SECONDS)
        taken = len(rig.audited())
        rig.node("n4")
    finally:
        rig.processes[leader].send_signal(signal.SIGCONT)
    until(rig.is_done)
    asks = {"get", "list", "watch"}
    until(lambda: any(one["user"]["username"].endswith(leader) for one in rig.audited()[taken:]))
    mine = [one for one in rig.audited()[taken:] if one["user"]["username"].endswith(leader)]
    written = [one["requestURI"] for one in mine if one["verb"] not in asks and one["responseStatus"]["code"] < 400]
    assert written == [] and rig.leader() == other


def test_an_api_that_was_away_is_gone_on_with(rig: Rig) -> None:
    pids = {name: process.pid for name, process in rig.processes.items()}
    rig.server.kill()
    rig.server.wait()
    time.sleep(LEASE_SECONDS)
    rig.server = rig.serve()
    rig.node("n5")
    rig.balance("web-n5")
    until(rig.is_done)
    assert {name: process.pid for name, process in rig.processes.items() if process.poll() is None} == pids


def test_they_ask_for_all_that_their_roles_allow_and_for_nothing_else(rig: Rig) -> None:
    rig.node("first")
    until(rig.is_done)
    rig.node("twin", *rig.blocks()["first"])
    until(lambda: "NetworkUnavailable" in json.dumps(rig.objects("nodes")))
    with rig.api() as api:
        api.delete("nodes", "", "twin")
    rig.set_pool("192.0.2.0/31", "10.96.0.1")
    until(lambda: rig.pool()["status"]["inUse"] == 2)
    rig.set_pool(ADDRESSES)
    until(rig.is_done)
    rules = rbac.CONTROLLERS.rules
    needed = {(rule.group, resource, verb) for rule in rules for resource in rule.resources for verb in rule.verbs}
    beyond, asked = set(), set()
    for one in rig.audited():
        reference = one["objectRef"]
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource", ""))))
        right = (reference.get("apiGroup", ""), resource, one["verb"])
        asked.add(right)
        rule = rbac.allows(*right, reference.get("namespace", ""), rbac.CONTROLLERS)
        if rule is None or (rule.names and reference.get("name") not in rule.names):
            beyond.add((*right, reference.get("name", "")))
    assert beyond == set()
    assert needed - asked <= {("", "events", "get"), ("", "events", "patch")}, "what is said again"


def test_who_is_told_to_end_leaves_the_lease_and_ends_well(rig: Rig) -> None:
    leader, other = rig.pair()
    with rig.api() as api:
        former = api.get(LEASES, NAMESPACE, NAME)["spec"]["holderIdentity"]
        rig.processes[leader].terminate()
        assert rig.processes[leader].wait(10) == 0
        assert api.get(LEASES, NAMESPACE, NAME)["spec"].get("holderIdentity", "") != former
        until(lambda: rig.leader() == other)
        rig.processes[other].terminate()
        assert rig.processes[other].wait(10) == 0
        assert api.get(LEASES, NAMESPACE, NAME)["spec"].get("holderIdentity", "") == ""


def test_what_can_t_be_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    for text, word in (
        ("node_blocks: {cidrs: [10.0.0.0/33]}", "10.0.0.0/33"),
        ("node_blocks: {cidrs: [10.0.0.0/16], mask_size_ipv4: 8}", "mask_size_ipv4"),
        ("nodeblocks: {}", "nodeblocks"),
        ("lease_seconds: 1", "lease_seconds"),
    ):
        config = tmp_path / "config"
        config.write_text(text)
        (tmp_path / "kubeconfig").write_text("x: 1")
        words = [*COMMAND, "controllers", "--config", str(config), "--kubeconfig", str(tmp_path / "kubeconfig")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and word in done.stderr and done.stderr.count("\n") == 1
