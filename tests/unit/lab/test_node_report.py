"""What nodes report of their machine, and that the scheduler goes by it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import msgspec
import pytest

from podplane.apiserver import shapes
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.table import RESOURCES
from podplane.ipam.plan import Plan
from podplane.kubeapi.client import Client
from podplane.lab import control_plane, registration
from podplane.lab.node_report import allocatable, architecture, capacity, images, labels, node_info
from podplane.lab.spec import LabSpec
from podplane.lab.underlay import usual_place
from podplane.model.config import UNDERLAY_MAC
from podplane.model.objects import Node
from podplane.model.quantity import parse
from podplane.runtime.images import IMAGES
from tests.unit.apiserver.controllers.cluster import Cluster

NOW = "2026-01-01T00:00:00Z"
POD = "/api/v1/namespaces/default/pods/p"


def plan() -> Plan:
    return LabSpec(name="one", nodes=2).plan()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with swap space and huge pages of two sizes, as sysfs and procfs show it."""
    for size, count in (("2048kB", "8"), ("1048576kB", "0")):
        folder = tmp_path / f"sys/kernel/mm/hugepages/hugepages-{size}"
        folder.mkdir(parents=True)
        (folder / "nr_hugepages").write_text(f"{count}\n")
    files = {
        "proc/meminfo": "MemTotal:       16384 kB\nSwapTotal:       2048 kB\n",
        "proc/sys/kernel/random/boot_id": "b76aa76b-333c-4feb-b3b0-e7793ede910b\n",
        "etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_labels_are_those_of_every_kubelet() -> None:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    assert labels("node1") == {
        "kubernetes.io/hostname": "node1",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
    }


def test_capacity_has_storage_and_huge_pages(root: Path) -> None:
    found = capacity(root, root)
    disk = os.statvfs(root)
    assert found.keys() == {"cpu", "memory", "pods", "ephemeral-storage", "hugepages-2Mi", "hugepages-1Gi"}
    assert parse(found["ephemeral-storage"]) == disk.f_frsize * disk.f_blocks
    assert (found["hugepages-2Mi"], found["hugepages-1Gi"], found["pods"]) == ("16Mi", "0", "110")


def test_memory_of_huge_pages_is_no_memory_for_pods() -> None:
    given = {"cpu": "2", "memory": "64Mi", "hugepages-2Mi": "16Mi", "hugepages-1Gi": "0"}
    assert allocatable(given) == {**given, "memory": "48Mi"}
    assert allocatable({"memory": "8Mi", "hugepages-2Mi": "16Mi"})["memory"] == "0"


def test_system_information_is_whole_and_tells_nodes_apart(root: Path) -> None:
    one, other = node_info("node1", root), node_info("node2", root)
    info = shapes.builtin().shape("io.k8s.api.core.v1.NodeSystemInfo")
    assert one.keys() == info.fields.keys()
    assert {name for name, value in one.items() if value == ""} == {"kubeProxyVersion"}, "it is empty since 1.33 (KEP-4004)"
    assert {name for name in one if one[name] != other[name]} == {"machineID", "systemUUID"}
    assert node_info("node1", root) == one, "they stay over restarts"
    assert (len(one["machineID"]), uuid.UUID(one["systemUUID"]).version) == (32, 5)
    assert one["bootID"] == "b76aa76b-333c-4feb-b3b0-e7793ede910b"
    assert one["swap"] == {"capacity": 2048 * 1024}


def test_a_machine_without_identifiers_and_swap_is_described_too(tmp_path: Path) -> None:
    found = node_info("node1", tmp_path)
    assert "swap" not in found
    assert len(found["machineID"]) == 32
    assert capacity(tmp_path, tmp_path).keys() == {"cpu", "memory", "pods", "ephemeral-storage"}


def test_each_image_is_there_once_with_its_names() -> None:
    found = images()
    assert sorted(name for image in found for name in image["names"]) == sorted(IMAGES)
    assert len(found) == len({id(image) for image in IMAGES.values()})


def test_a_node_fits_its_kind(tmp_path: Path) -> None:
    nodes: Resource = next(row for row in RESOURCES if row.id == "nodes")
    node = control_plane.node(usual_place(plan(), 1), tmp_path, NOW, "host-gw")
    findings = nodes.read(node)
    assert (findings.unknown, findings.wrong, findings.causes) == ([], [], [])
    assert list(nodes.check(node, None)) == []
    status = node["status"]
    assert [a["type"] for a in status["addresses"]] == ["InternalIP"] * (len(status["addresses"]) - 1) + ["Hostname"]
    pressures = dict.fromkeys(("MemoryPressure", "DiskPressure", "PIDPressure"), "False")
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "NetworkUnavailable": "False",
        **pressures,
        "Ready": "True",
    }
    assert msgspec.convert(node, Node).is_ready


async def test_the_five_conditions_and_the_scheduler(tmp_path: Path) -> None:
    cluster = await Cluster(1).begin()
    reported = control_plane.node(usual_place(plan(), 1), tmp_path, NOW, "host-gw")
    await cluster("PATCH", "/api/v1/nodes/node1", {"metadata": {"labels": reported["metadata"]["labels"]}})
    await cluster("PATCH", "/api/v1/nodes/node1/status", {"status": reported["status"]})
    await cluster.beat("node1")
    node = await cluster("GET", "/api/v1/nodes/node1")
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]} == {
        "NetworkUnavailable": "False",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }
    assert await placed(cluster, "fits", architecture(), "1Ki") == "node1"
    assert await placed(cluster, "other", "s390x", "1Ki") == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    )
    assert await placed(cluster, "large", architecture(), "8Ei") == (
        "0/1 nodes are available: 1 Insufficient ephemeral-storage."
    )


async def placed(cluster: Cluster, name: str, arch: str, storage: str) -> str:
    """The node of a new pod, or why it has none."""
    resources = {"requests": {"ephemeral-storage": storage}}
    spec = {
        "containers": [{"name": "main", "image": "podplane/echo", "resources": resources}],
        "nodeSelector": {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux"},
    }
    await cluster("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec})
    await cluster.settle()
    pod = await cluster("GET", f"/api/v1/namespaces/default/pods/{name}")
    found: str = pod["spec"].get("nodeName") or pod["status"]["conditions"][0]["message"]
    return found


async def test_a_node_of_a_former_run_learns_what_its_machine_is_now(tmp_path: Path) -> None:
    cluster = await Cluster(1).begin()
    client = Client(cluster.server.call, "secret")
    old = control_plane.node(usual_place(plan(), 2), tmp_path, NOW, "host-gw")
    old["metadata"]["labels"] = {"kubernetes.io/hostname": "node2", "mine": "too"}
    old["metadata"]["annotations"] |= {UNDERLAY_MAC: "02:00:00:00:00:01", "mine": "too"}
    old["status"]["capacity"] = {"cpu": "1", "example.com/dongle": "4"}
    await registration.register(client, old)
    wanted = control_plane.node(usual_place(plan(), 2), tmp_path, "2026-02-02T00:00:00Z", "host-gw")
    await registration.register(client, wanted)
    node = await cluster("GET", "/api/v1/nodes/node2")
    assert node["metadata"]["labels"] == {**labels("node2"), "mine": "too"}
    assert node["metadata"]["annotations"] == {**wanted["metadata"]["annotations"], "mine": "too"}, (
        "it had another network card"
    )
    assert node["status"]["capacity"] == {**wanted["status"]["capacity"], "example.com/dongle": "4"}
    assert node["status"]["conditions"][0]["lastTransitionTime"] == NOW, "conditions are the heartbeat's"


async def test_what_others_say_a_node_has_can_be_had() -> None:
    cluster = await Cluster(1).begin()
    status = "/api/v1/nodes/node1/status"
    await cluster("PATCH", status, {"status": {"capacity": {"example.com/dongle": "4", "cpu": "8"}}})
    await cluster.beat("node1")
    node = await cluster("GET", "/api/v1/nodes/node1")
    assert node["status"]["allocatable"] == {"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/dongle": "4"}
    await cluster("PATCH", status, {"status": {"capacity": {"example.com/dongle": None}}})
    await cluster.beat("node1")
    node = await cluster("GET", "/api/v1/nodes/node1")
    assert node["status"]["allocatable"] == {"cpu": "4", "memory": "8Gi", "pods": "110"}


def test_sources_are_where_the_kernel_has_them() -> None:
    assert node_info("node1")["bootID"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
