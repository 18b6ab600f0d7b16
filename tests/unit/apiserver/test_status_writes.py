"""Writes of a subresource: of all that a client sends, only what the subresource is about counts.

The empty specs are those that typed Go clients send: `json.Marshal` of an object of k8s.io/api v0.36.3 whose spec nobody filled in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podplane.apiserver.kinds.resource import WITH_STATUS
from podplane.apiserver.kinds.table import RESOURCES
from tests.unit.apiserver.test_server import CONTAINER, Api, Object

LABELS = {"app": "web"}
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "00000000-0000-0000-0000-000000000001"}
METADATA: Object = {"labels": LABELS, "annotations": {"a": "b"}}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}}
WORKLOAD = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}
NO_TEMPLATE = {"metadata": {}, "spec": {"containers": None}}
SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CRD_SPEC = {
    "group": "example.org",
    "scope": "Namespaced",
    "names": {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"},
    "versions": [
        {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": SCHEMA}}
    ],
}
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
KINDS: dict[str, tuple[Object, Object, Object]] = {
    "namespaces": ({}, {}, {"phase": "Active"}),
    "nodes": (
        {"taints": [{"key": "a", "effect": "NoExecute"}]},
        {},
        {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    ),
    "pods": (
        TEMPLATE["spec"],
        {"containers": None},
        {"phase": "Running", "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}]},
    ),
    "services": (
        {"type": "LoadBalancer", "ports": [{"port": 80}]},
        {},
        {"loadBalancer": {"ingress": [{"hostname": "a.example"}]}},
    ),
    "daemonsets.apps": (
        WORKLOAD,
        {"selector": None, "template": NO_TEMPLATE, "updateStrategy": {}},
        {"currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1, "numberReady": 1},
    ),
    "deployments.apps": (
        WORKLOAD,
        {"selector": None, "template": NO_TEMPLATE, "strategy": {}},
        {"replicas": 2, "readyReplicas": 2, "availableReplicas": 1},
    ),
    "replicasets.apps": (WORKLOAD, {"selector": None, "template": NO_TEMPLATE}, {"replicas": 1, "readyReplicas": 1}),
    "statefulsets.apps": (
        {**WORKLOAD, "serviceName": "web"},
        {"selector": None, "template": NO_TEMPLATE, "serviceName": "", "updateStrategy": {}},
        {"replicas": 1, "availableReplicas": 0},
    ),
    "jobs.batch": (
        {"template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}},
        {"template": NO_TEMPLATE},
        {"active": 1, "ready": 1},
    ),
    "ingresses.networking.k8s.io": (
        {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}},
        {},
        {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    ),
    "servicecidrs.networking.k8s.io": (
        {"cidrs": ["10.96.0.0/16"]},
        {},
        {
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            ]
        },
    ),
    CRDS: (
        CRD_SPEC,
        {"group": "", "names": {"plural": "", "kind": ""}, "scope": "", "versions": None},
        {"storedVersions": ["v1"]},
    ),
    "things.example.org": ({"colour": "red"}, {"colour": ["wrong", 1]}, {"shade": "dark"}),
}
"""Of each kind with a status: a spec, an empty one, a status."""
SPARED = {
    "deployments.apps": {"labels"},
    "pods": {"ownerReferences"},
    "servicecidrs.networking.k8s.io": set(WITH_STATUS),
    "things.example.org": set(WITH_STATUS),
}
"""Metadata that a write of the status leaves as it is, beside what it always leaves."""


async def api_with(kind: str) -> tuple[Api, str, Object]:
    """An API, the path of an object of a kind, and the object."""
    api = Api()
    if kind == "things.example.org":
        await api("POST", f"/apis/apiextensions.k8s.io/v1/{CRDS.split('.')[0]}", {"metadata": {"name": kind}, "spec": CRD_SPEC})
    row = next(row for row in api.server._registry.stored() if row.id == kind)
    base = f"/apis/{row.group_version}" if row.group else "/api/v1"
    path = f"{base}/namespaces/default/{row.plural}" if row.namespaced else f"{base}/{row.plural}"
    name = "things.example.org" if kind == CRDS else "web"
    made = await api("POST", path, {"metadata": {"name": name, **METADATA}, "spec": KINDS[kind][0]})
    return api, f"{path}/{name}", made


def test_every_kind_with_a_status_is_tried() -> None:
    assert {row.id for row in RESOURCES if row.has_status} | {"things.example.org"} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_status_is_written_whatever_the_spec_beside_it(kind: str) -> None:
    api, path, old = await api_with(kind)
    _, empty, status = KINDS[kind]
    metadata = {"name": old["metadata"]["name"], "resourceVersion": old["metadata"]["resourceVersion"], **METADATA}
    body = {"apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": metadata, "spec": empty, "status": status}
    new = await api("PUT", f"{path}/status", body, fieldValidation="Strict")
    assert status.items() <= new["status"].items()
    assert new["spec"] == old["spec"]
    assert await api("GET", path) == new
    assert new["metadata"].get("generation") == old["metadata"].get("generation")
    kept = ("uid", "creationTimestamp", "name", "labels", "annotations")
    assert [new["metadata"][field] for field in kept] == [old["metadata"][field] for field in kept]


@pytest.mark.parametrize("kind", KINDS)
async def test_of_its_metadata_what_kubernetes_takes_is_taken(kind: str) -> None:
    api, path, old = await api_with(kind)
    said: Object = {
        "labels": {"app": "other"},
        "annotations": {"c": "d"},
        "ownerReferences": [OWNER],
        "finalizers": ["example.org/wait"],
    }
    never = {"uid": old["metadata"]["uid"], "generation": 77, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    body = {**old, "metadata": {**old["metadata"], **said, **never}, "status": KINDS[kind][2]}
    new = (await api("PUT", f"{path}/status", body))["metadata"]
    spared = SPARED.get(kind, set())
    expected = {field: old["metadata"].get(field) if field in spared else value for field, value in said.items()}
    if kind == "namespaces":
        expected["labels"] |= {"kubernetes.io/metadata.name": "web"}
    if kind == "daemonsets.apps":
        expected["annotations"] |= {"deprecated.daemonset.template.generation": "1"}
    assert {field: new.get(field) for field in said} == expected
    assert (new.get("generation"), new.get("deletionTimestamp")) == (old["metadata"].get("generation"), None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_spec_that_is_no_longer_valid_hinders_no_status(kind: str) -> None:
    """What is stored may be of another time, with other rules."""
    api, path, old = await api_with(kind)
    row = next(row for row in api.server._registry.stored() if row.id == kind)
    spec = {
        **old["spec"],
        "replicas": -1,
        "clusterIP": "nonsense",
        "restartPolicy": "Sometimes",
        "podCIDRs": ["x"],
        "cidrs": ["10.96.0.0/16", "10.97.0.0/16"],
    }
    key = (old["metadata"].get("namespace", ""), old["metadata"]["name"])
    api.server._records.store.put(row.id, key, {**old, "spec": spec})
    new = await api("PATCH", f"{path}/status", {"status": KINDS[kind][2]})
    assert KINDS[kind][2].items() <= new["status"].items()
    assert new["spec"] == spec


@pytest.mark.parametrize("kind", KINDS)
async def test_the_object_itself_takes_no_status(kind: str) -> None:
    api, path, old = await api_with(kind)
    new = await api("PUT", path, {**old, "status": {**old.get("status", {}), **KINDS[kind][2], "conditions": []}})
    assert new.get("status") == old.get("status")


@pytest.mark.parametrize(
    ("kind", "status", "why"),
    [
        ("namespaces", {"phase": "Terminating"}, "status.Phase: Invalid value"),
        ("nodes", {"addresses": [{"type": "Hostname", "address": "a"}] * 2}, "status.addresses[1]: Duplicate value"),
        ("nodes", {"addresses": [{"type": "InternalIP", "address": "a"}]}, "status.addresses[0].address: Invalid value"),
        ("pods", {"podIPs": [{"ip": "x"}]}, "status.podIPs[0]: Invalid value"),
        ("pods", {"podIP": "::ffff:127.0.0.1"}, "must not be an IPv4-mapped IPv6 address"),
        (
            "nodes",
            {"addresses": [{"type": "InternalIP", "address": "::ffff:10.0.0.1"}]},
            "must not be an IPv4-mapped IPv6 address",
        ),
        ("pods", {"podIPs": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}, "no more than one IP for each IP family"),
        ("pods", {"hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.2"}]}, "status.hostIPs[0].ip: Invalid value"),
        ("pods", {"conditions": [{"type": "a b", "status": "True"}]}, "status.conditions[0].Type: Invalid value"),
        ("pods", {"nominatedNodeName": "A_b"}, "status.nominatedNodeName: Invalid value"),
        (
            "deployments.apps",
            {"replicas": 1, "readyReplicas": 2},
            "readyReplicas: Invalid value: 2: cannot be greater than status",
        ),
        ("deployments.apps", {"replicas": 1, "availableReplicas": 1}, "cannot be greater than readyReplicas"),
        ("replicasets.apps", {"replicas": -1}, "status.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ("statefulsets.apps", {"replicas": 0, "updatedReplicas": 1}, "cannot be greater than status.replicas"),
        ("daemonsets.apps", {"numberReady": -1}, "status.numberReady: Invalid value"),
        ("jobs.batch", {"active": -1}, "status.active: Invalid value"),
        (
            "jobs.batch",
            {"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}},
            "status.uncountedTerminatedPods.failed[0]: Dup",
        ),
        (
            "ingresses.networking.k8s.io",
            {"loadBalancer": {"ingress": [{"ip": "x"}]}},
            "status.loadBalancer.ingress[0].ip: Invalid",
        ),
    ],
)
async def test_a_status_that_makes_no_sense_is_refused(kind: str, status: Object, why: str) -> None:
    api, path, _ = await api_with(kind)
    assert why in await api.refused("Invalid", "PATCH", f"{path}/status", {"status": status})


FACTS: list[Object] = json.loads((Path(__file__).parent / "status_writes.json").read_text())["cases"]


def said(value: Any) -> Any:
    """Without what is empty or zero."""
    if isinstance(value, dict):
        return {name: inner for name, inner in ((name, said(inner)) for name, inner in value.items()) if inner}
    return [said(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("fact", FACTS)
async def test_statuses_are_taken_and_refused_as_by_the_strategies_of_kube_apiserver(fact: Object) -> None:
    api, path, old = await api_with(fact["kind"])
    old["status"] = fact["before"]
    api.server._records.store.put(fact["kind"], (old["metadata"].get("namespace", ""), old["metadata"]["name"]), old)
    answer = await api.answer("PUT", f"{path}/status", {**old, "status": fact["write"]})
    found = json.loads(answer.body)
    if "refused" in fact:
        assert sorted({cause["field"] for cause in found["details"]["causes"]}) == fact["refused"]
    else:
        assert said(found["status"]) == fact["becomes"]


def test_the_facts_are_of_each_kind() -> None:
    assert {fact["kind"] for fact in FACTS} == KINDS.keys() - {CRDS, "things.example.org"}


async def test_a_number_of_collisions_does_not_fall() -> None:
    api, path, _ = await api_with("deployments.apps")
    await api("PATCH", f"{path}/status", {"status": {"collisionCount": 2}})
    why = await api.refused("Invalid", "PATCH", f"{path}/status", {"status": {"collisionCount": 1}})
    assert "status.collisionCount: Invalid value: 1: cannot be decremented" in why


async def test_types_are_checked_all_the_same() -> None:
    api, path, old = await api_with("deployments.apps")
    await api.refused("BadRequest", "PUT", f"{path}/status", {**old, "spec": {"replicas": "three"}})
    await api.refused("BadRequest", "PUT", f"{path}/status", {**old, "spec": {"colour": 1}}, fieldValidation="Strict")


async def test_the_schema_of_a_custom_resource_holds_for_its_status_alone() -> None:
    api, path, old = await api_with("things.example.org")
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}}},
            "status": {"type": "object", "properties": {"shade": {"type": "string", "enum": ["dark"]}}},
        },
    }
    version = {**CRD_SPEC["versions"][0], "schema": {"openAPIV3Schema": schema}}  # type: ignore[index]
    definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.org"
    await api("PATCH", definition, {"spec": {"versions": [version]}})
    assert (await api("PUT", f"{path}/status", {**old, "status": {"shade": "dark"}}))["status"] == {"shade": "dark"}
    why = await api.refused("Invalid", "PATCH", f"{path}/status", {"status": {"shade": "light"}})
    assert "status.shade: Unsupported value" in why
    assert "spec" not in why
    gone = await api(
        "PUT", f"{path}/status", {key: value for key, value in (await api("GET", path)).items() if key != "status"}
    )
    assert "status" not in gone


async def test_a_namespace_keeps_its_finalizers() -> None:
    api, path, old = await api_with("namespaces")
    new = await api("PUT", path, {**old, "spec": {}, "metadata": {**old["metadata"], "labels": {"x": "y"}}})
    assert new["spec"] == old["spec"] == {"finalizers": ["kubernetes"]}


async def test_of_a_scale_only_the_number_counts() -> None:
    api, path, old = await api_with("deployments.apps")
    metadata = {"name": "web", "labels": {"x": "y"}, "annotations": {"x": "y"}, "finalizers": ["example.org/wait"]}
    scale = await api("PUT", f"{path}/scale", {"metadata": metadata, "spec": {"replicas": 5}, "status": {"replicas": 9}})
    assert (scale["spec"], scale["status"]["replicas"]) == ({"replicas": 5}, 0)
    new = await api("GET", path)
    assert new["spec"] == {**old["spec"], "replicas": 5}
    assert {field: new["metadata"].get(field) for field in WITH_STATUS} == {
        field: old["metadata"].get(field) for field in WITH_STATUS
    }


async def test_of_ephemeral_containers_nothing_else_counts() -> None:
    api, path, old = await api_with("pods")
    debug: Any = [{"name": "debug", "image": "podplane/client"}]
    body = {"metadata": {"name": "web", "labels": {"x": "y"}}, "spec": {"containers": None, "ephemeralContainers": debug}}
    new = await api("PUT", f"{path}/ephemeralcontainers", body)
    assert [one["name"] for one in new["spec"]["ephemeralContainers"]] == ["debug"]
    assert new["spec"]["containers"] == old["spec"]["containers"]
    assert new["metadata"]["labels"] == LABELS
    body["spec"] = {"containers": None, "ephemeralContainers": [{"name": "nameless"}]}
    assert "spec.ephemeralContainers[0]" in await api.refused("Invalid", "PUT", f"{path}/ephemeralcontainers", body)


async def test_a_binding_gives_labels_and_annotations_with_the_node() -> None:
    api, path, _ = await api_with("pods")
    said = {"name": "web", "labels": {"zone": "a"}, "annotations": {"why": "so"}}
    await api("PATCH", f"{path}/status", {"status": {"nominatedNodeName": "n2"}})
    await api("POST", f"{path}/binding", {"metadata": said, "target": {"kind": "Node", "name": "n1"}})
    pod = await api("GET", path)
    assert pod["spec"]["nodeName"] == "n1"
    assert pod["metadata"]["labels"] == {**LABELS, "zone": "a"}
    assert pod["metadata"]["annotations"] == {"a": "b", "why": "so"}
    assert "nominatedNodeName" not in pod["status"]
    again = {"metadata": {"name": "web"}, "target": {"name": "n2"}}
    assert 'pod web is already assigned to node "n1"' in await api.refused("Conflict", "POST", f"{path}/binding", again)


async def test_what_can_not_be_bound_is_refused() -> None:
    api, path, _ = await api_with("pods")
    other = {"metadata": {"name": "web"}, "target": {"kind": "Pod", "name": "n1"}}
    assert "target.kind: Unsupported value" in await api.refused("Invalid", "POST", f"{path}/binding", other)
    gated = {"metadata": {"name": "gated"}, "spec": {"containers": [CONTAINER], "schedulingGates": [{"name": "a"}]}}
    await api("POST", path.removesuffix("/web"), gated)
    binding = {"metadata": {"name": "gated"}, "target": {"name": "n1"}}
    why = await api.refused("Conflict", "POST", path.replace("web", "gated/binding"), binding)
    assert "non-empty .spec.schedulingGates" in why
    await api("PATCH", path, {"metadata": {"finalizers": ["example.org/wait"]}})
    await api("DELETE", path)
    assert "is being deleted" in await api.refused("Conflict", "POST", f"{path}/binding", {**other, "target": {"name": "n1"}})
