"""Further interfaces in a lab, as a user makes them: the published kind, a network, pods with annotations, and what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("further-networks")]
NETWORKS, STATUS = "k8s.v1.cni.cncf.io/networks", "k8s.v1.cni.cncf.io/network-status"
DEFINITIONS = "network-attachment-definitions.k8s.cni.cncf.io"
KIND = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": DEFINITIONS},
    "spec": {
        "group": "k8s.cni.cncf.io",
        "scope": "Namespaced",
        "names": {
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "kind": "NetworkAttachmentDefinition",
            "shortNames": ["net-attach-def"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}},
                    }
                },
            }
        ],
    },
}
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 8080), 5) as c:
    c.sendall(b"hello\\n")
    print(c.recv(100).decode())
"""


def definition(name: str, **config: Any) -> dict[str, Any]:
    spec = {"config": json.dumps({"cniVersion": "1.0.0", "type": "podplane", **config})}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": metadata, "spec": spec}


def pod(name: str, networks: str) -> dict[str, Any]:
    spec = {"nodeName": "node1", "containers": [{"name": "main", "image": "podplane/echo"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {NETWORKS: networks}}, "spec": spec}


def create(kubectl: Kubectl, *objects: dict[str, Any]) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


PODS = {
    "plain": "blue",
    "chosen": json.dumps([{"name": "blue", "interface": "data0", "ips": ["10.20.0.77"], "mac": "02:00:00:00:00:77"}]),
    "early": "default/late@net7",
}


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl) -> Iterator[None]:
    try:
        create(kubectl, KIND)
        kubectl("wait", "--for=condition=Established", f"crd/{DEFINITIONS}", "--timeout=10s")
        create(kubectl, definition("blue", subnets=["10.20.0.0/24", "fd00:20::/64"]))
        create(kubectl, *(pod(name, networks) for name, networks in PODS.items()))
        kubectl("wait", "--for=condition=Ready", "pod/plain", "pod/chosen", "--timeout=30s")
        yield
    finally:
        kubectl("delete", "pod", "--ignore-not-found", "--now", *PODS)
        kubectl("delete", "crd", "--ignore-not-found", DEFINITIONS)


def status(kubectl: Kubectl, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        json.loads(kubectl("get", "pod", name, "-o", "json"))["metadata"]["annotations"].get(STATUS, "[]")
    )
    return found


def said(kubectl: Kubectl, name: str) -> str:
    """The events of a pod."""
    return kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", "json")


def test_pods_reach_each_other_by_the_addresses_that_their_status_says(pods: None, kubectl: Kubectl) -> None:
    own, blue = status(kubectl, "chosen")
    assert (own["name"], own["interface"], own["default"]) == ("podplane", "eth0", True)
    assert (blue["name"], blue["interface"], blue["mac"]) == ("default/blue", "data0", "02:00:00:00:00:77")
    assert blue["ips"][0] == "10.20.0.77" and len(blue["ips"]) == 2
    _, client = status(kubectl, "plain")
    for ip, source in zip(blue["ips"], client["ips"], strict=True):
        assert kubectl("exec", "plain", "--", "python3", "-c", ASK, ip).startswith(f"chosen {source} ")


def test_an_agent_that_starts_again_leaves_them_as_they_are(pods: None, kubectl: Kubectl, lab: Podplane) -> None:
    assert "wrote nothing to the kernel" in lab("fault", "node1", "--restart-agent").stdout
    assert kubectl("exec", "plain", "--", "python3", "-c", ASK, "10.20.0.77").startswith("chosen ")


def test_a_pod_waits_for_its_network_and_says_so(pods: None, kubectl: Kubectl) -> None:
    until(
        lambda: "there is no NetworkAttachmentDefinition default/late: create it, and the pod starts" in said(kubectl, "early")
    )
    create(kubectl, definition("late", subnets=["10.21.0.0/24"]))
    kubectl("wait", "--for=condition=Ready", "pod/early", "--timeout=40s")
    assert [one["interface"] for one in status(kubectl, "early")] == ["eth0", "net7"]


def test_a_definition_that_can_not_be_had_is_told(pods: None, kubectl: Kubectl) -> None:
    create(kubectl, definition("other") | {"spec": {"config": '{"type": "no-such-plugin"}'}}, pod("never", "other"))
    try:
        until(lambda: "no-such-plugin" in said(kubectl, "never"))
    finally:
        kubectl("delete", "pod", "--now", "never")
