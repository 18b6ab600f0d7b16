"""Every built-in kind is created, listed, shown as a table, changed and deleted; and what is wrong with one is said with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.table import RESOURCES
from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import CONTAINER, Api

Object = dict[str, Any]
LABELS = {"app": "x"}
TEMPLATE: Object = {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}}
WORKLOAD = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}
LIMITED = {**TEMPLATE, "spec": {"containers": [CONTAINER], "activeDeadlineSeconds": 5}}
ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
CRD: Object = {
    "group": "example.org",
    "scope": "Namespaced",
    "names": {"plural": "things", "kind": "Thing"},
    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
}
LEAST: dict[str, Object] = {
    "configmaps": {"data": {"a": "1"}},
    "endpoints": {"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]},
    "events": {"involvedObject": {"kind": "Pod", "namespace": "default", "name": "x"}, "reason": "R", "type": "Normal"},
    "namespaces": {},
    "nodes": {},
    "pods": {"spec": {"containers": [CONTAINER]}},
    "podtemplates": {"template": TEMPLATE},
    "secrets": {"stringData": {"a": "b"}},
    "serviceaccounts": {},
    "services": {"spec": {"ports": [{"port": 80}]}},
    "controllerrevisions.apps": {"data": {"spec": {"template": {}}}, "revision": 1},
    "daemonsets.apps": {"spec": WORKLOAD},
    "deployments.apps": {"spec": WORKLOAD},
    "replicasets.apps": {"spec": WORKLOAD},
    "statefulsets.apps": {"spec": WORKLOAD},
    "jobs.batch": {"spec": {"template": {"spec": {"containers": [CONTAINER], "restartPolicy": "Never"}}}},
    "leases.coordination.k8s.io": {"spec": {"holderIdentity": "x", "renewTime": "2026-01-01T00:00:00.000000Z"}},
    "endpointslices.discovery.k8s.io": {
        "addressType": "IPv6",
        "endpoints": [{"addresses": ["fd00::1"]}],
        "ports": [{"port": 80}],
    },
    "ingressclasses.networking.k8s.io": {"spec": {"controller": "example.org/x"}},
    "ingresses.networking.k8s.io": {"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}},
    "ipaddresses.networking.k8s.io": {"spec": {"parentRef": {"resource": "services", "name": "x"}}},
    "networkpolicies.networking.k8s.io": {"spec": {"podSelector": {}}},
    "servicecidrs.networking.k8s.io": {"spec": {"cidrs": ["10.96.0.0/16"]}},
    "clusterrolebindings.rbac.authorization.k8s.io": {"roleRef": ROLE},
    "clusterroles.rbac.authorization.k8s.io": {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
    "rolebindings.rbac.authorization.k8s.io": {"roleRef": ROLE},
    "roles.rbac.authorization.k8s.io": {"rules": []},
    "customresourcedefinitions.apiextensions.k8s.io": {"spec": CRD},
}
NAMES = {"ipaddresses.networking.k8s.io": "10.96.0.9", "customresourcedefinitions.apiextensions.k8s.io": "things.example.org"}
STORED = [row for row in RESOURCES if not row.is_review]


def collection(row: Resource) -> str:
    base = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
    return f"{base}/namespaces/default/{row.plural}" if row.namespaced else f"{base}/{row.plural}"


@pytest.mark.parametrize("row", STORED, ids=lambda row: row.id)
async def test_each_kind_lives_a_life(row: Resource) -> None:
    api, path, name = Api(), collection(row), NAMES.get(row.id, "x")
    made = await api("POST", path, {"metadata": {"name": name}, **LEAST[row.id]}, fieldValidation="Strict")
    assert (made["kind"], made["apiVersion"]) == (row.kind, row.group_version)
    assert await api("GET", f"{path}/{name}") == made
    assert name in await api.names(path)
    assert await api("PUT", f"{path}/{name}", made) == made, "what was read can be written back, and is no change"
    labelled = await api("PATCH", f"{path}/{name}", {"metadata": {"labels": {"a": "b"}}})
    assert (labelled["metadata"]["labels"]["a"], labelled["metadata"].get("generation")) == (
        "b",
        made["metadata"].get("generation"),
    )
    assert await api.names(path, labelSelector="a=b", fieldSelector=f"metadata.name={name}") == [name]
    await api("DELETE", f"{path}/{name}", {"gracePeriodSeconds": 0})
    await api.refused("NotFound", "GET", f"{path}/{name}")


@pytest.mark.parametrize("row", STORED, ids=lambda row: row.id)
async def test_each_kind_is_shown_as_a_table(row: Resource) -> None:
    api, name = Api(), NAMES.get(row.id, "x")
    await api("POST", collection(row), {"metadata": {"name": name}, **LEAST[row.id]})
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    answer = await api.server.handle(Request("GET", collection(row), {}, {"authorization": "Bearer secret", "accept": accept}))
    assert isinstance(answer, Response)
    table = json.loads(answer.body)
    row_of_it = next(r for r in table["rows"] if r["object"]["metadata"]["name"] == name)
    cells = dict(zip((c["name"] for c in table["columnDefinitions"]), row_of_it["cells"], strict=True))
    assert cells.get("Name", name) == name
    assert all(value is not None for value in cells.values())


@pytest.mark.parametrize(
    ("id_", "change", "field"),
    [
        ("services", {"spec": {"ports": []}}, "spec.ports"),
        ("services", {"spec": {"ports": [{"port": 65536}]}}, "spec.ports[0].port"),
        ("services", {"spec": {"ports": [{"port": 1}, {"port": 2}]}}, "spec.ports[0].name"),
        ("services", {"spec": {"type": "ExternalName"}}, "spec.externalName"),
        ("services", {"spec": {"type": "Other", "ports": [{"port": 1}]}}, "spec.type"),
        ("services", {"spec": {"clusterIP": "x", "ports": [{"port": 1}]}}, "spec.clusterIPs[0]"),
        ("services", {"spec": {"ports": [{"port": 1, "nodePort": 30000}]}}, "spec.ports[0].nodePort"),
        ("endpoints", {"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}, "subsets[0].addresses[0].ip"),
        (
            "endpointslices.discovery.k8s.io",
            {"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]},
            "endpoints[0].addresses[0]",
        ),
        ("endpointslices.discovery.k8s.io", {"endpoints": []}, "addressType"),
        (
            "networkpolicies.networking.k8s.io",
            {"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}},
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            "networkpolicies.networking.k8s.io",
            {"spec": {"egress": [{"ports": [{"port": 9, "endPort": 8}]}]}},
            "spec.egress[0].ports[0].endPort",
        ),
        (
            "networkpolicies.networking.k8s.io",
            {"spec": {"podSelector": {"matchLabels": {"a": "-"}}}},
            "spec.podSelector.matchLabels",
        ),
        ("ingresses.networking.k8s.io", {"spec": {}}, "spec"),
        ("deployments.apps", {"spec": {**WORKLOAD, "replicas": -1}}, "spec.replicas"),
        (
            "deployments.apps",
            {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}},
            "spec.template.metadata.labels",
        ),
        ("statefulsets.apps", {"spec": {"selector": {}, "template": TEMPLATE}}, "spec.selector"),
        ("statefulsets.apps", {"spec": {**WORKLOAD, "ordinals": {"start": -1}}}, "spec.ordinals.start"),
        (
            "statefulsets.apps",
            {"spec": {**WORKLOAD, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}}},
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled",
        ),
        *(
            (f"{plural}.apps", {"spec": {**WORKLOAD, "template": LIMITED}}, "spec.template.spec.activeDeadlineSeconds")
            for plural in ("daemonsets", "deployments", "replicasets", "statefulsets")
        ),
        (
            "statefulsets.apps",
            {"spec": {**WORKLOAD, "template": {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}},
            "spec.template.spec.restartPolicy",
        ),
        ("jobs.batch", {"spec": {"template": TEMPLATE}}, "spec.template.spec.restartPolicy"),
        ("podtemplates", {"template": {"spec": {"containers": []}}}, "template.spec.containers"),
        ("configmaps", {"data": {"a/b": ""}}, "data[a/b]"),
        ("leases.coordination.k8s.io", {"spec": {"leaseDurationSeconds": 0}}, "spec.leaseDurationSeconds"),
        ("servicecidrs.networking.k8s.io", {"spec": {"cidrs": ["10.0.0.0/8", "11.0.0.0/8"]}}, "spec.cidrs"),
        ("servicecidrs.networking.k8s.io", {"spec": {"cidrs": ["10.0.0.1/8"]}}, "spec.cidrs[0]"),
        ("roles.rbac.authorization.k8s.io", {"rules": [{"verbs": []}]}, "rules[0].verbs"),
        ("customresourcedefinitions.apiextensions.k8s.io", {"spec": {**CRD, "group": "other.org"}}, "metadata.name"),
        ("customresourcedefinitions.apiextensions.k8s.io", {"spec": {**CRD, "versions": []}}, "spec.versions"),
        ("configmaps", {"metadata": {"name": "x", "labels": {"a b": ""}}}, "metadata.labels"),
        ("configmaps", {"metadata": {"name": "x", "finalizers": ["/"]}}, "metadata.finalizers[0]"),
        (
            "configmaps",
            {"metadata": {"name": "x", "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": ""}]}},
            "metadata.ownerReferences[0].uid",
        ),
    ],
)
async def test_what_is_invalid_is_said_with_its_place(id_: str, change: Object, field: str) -> None:
    api, row = Api(), next(row for row in RESOURCES if row.id == id_)
    answer = await api.answer("POST", collection(row), {"metadata": {"name": NAMES.get(id_, "x")}, **change})
    status = json.loads(answer.body)
    assert (answer.status, status["reason"], status["details"]["kind"]) == (422, "Invalid", row.kind)
    assert field in [cause["field"] for cause in status["details"]["causes"]]
    assert api.store.get(row.id, ("default" if row.namespaced else "", NAMES.get(id_, "x"))) is None


@pytest.mark.parametrize(
    ("id_", "change", "field"),
    [
        ("deployments.apps", {"spec": {"selector": {"matchLabels": {"app": "x", "b": "c"}}}}, "spec.selector"),
        ("jobs.batch", {"spec": {"completions": 5}}, "spec.completions"),
        ("statefulsets.apps", {"spec": {"serviceName": "other"}}, "spec"),
        ("ipaddresses.networking.k8s.io", {"spec": {"parentRef": {"name": "other"}}}, "spec.parentRef"),
        ("rolebindings.rbac.authorization.k8s.io", {"roleRef": {"name": "other"}}, "roleRef"),
        ("endpointslices.discovery.k8s.io", {"addressType": "FQDN"}, "addressType"),
        ("pods", {"spec": {"hostNetwork": True}}, "spec"),
        (
            "pods",
            {"spec": {"containers": [CONTAINER], "hostPID": True, "shareProcessNamespace": True}},
            "spec.securityContext.shareProcessNamespace",
        ),
        ("secrets", {"type": "other"}, "type"),
    ],
)
async def test_what_is_set_for_good_is_not_changed(id_: str, change: Object, field: str) -> None:
    api, row = Api(), next(row for row in RESOURCES if row.id == id_)
    name = NAMES.get(id_, "x")
    made = await api("POST", collection(row), {"metadata": {"name": name}, **LEAST[id_]})
    answer = await api.answer("PATCH", f"{collection(row)}/{name}", change)
    assert answer.status == 422
    assert field in [cause["field"] for cause in json.loads(answer.body)["details"]["causes"]]
    assert await api("GET", f"{collection(row)}/{name}") == made


async def test_generation_counts_what_is_wanted_and_status_is_written_apart() -> None:
    api, path = Api(), "/apis/apps/v1/namespaces/default/deployments"
    made = await api("POST", path, {"metadata": {"name": "x"}, "spec": WORKLOAD, "status": {"replicas": 9}})
    assert (made["metadata"]["generation"], made.get("status")) == (1, {})
    await api("PATCH", f"{path}/x/status", {"status": {"replicas": 3}, "spec": {"replicas": 7}})
    await api("PATCH", f"{path}/x/scale", {"spec": {"replicas": 2}})
    found = await api("GET", f"{path}/x")
    assert (found["metadata"]["generation"], found["spec"]["replicas"], found["status"]) == (2, 2, {"replicas": 3})
    scale = await api("GET", f"{path}/x/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 3, "selector": "app=x"})
    await api.refused("Invalid", "PATCH", f"{path}/x/scale", {"spec": {"replicas": -1}})


async def test_ports_on_the_node_are_said_in_pods_and_not_in_templates() -> None:
    api = Api()
    spec = {"hostNetwork": True, "containers": [{"name": "main", "image": "i", "ports": [{"containerPort": 80}]}]}
    template = {"metadata": {"labels": {"app": "x"}}, "spec": spec}
    body = {"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template}}
    daemon_set = await api("POST", "/apis/apps/v1/namespaces/default/daemonsets", body)
    made = await api("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "x"}, "spec": spec})
    ports = [found["spec"]["containers"][0]["ports"] for found in (daemon_set["spec"]["template"], made)]
    assert [port.get("hostPort") for (port,) in ports] == [None, 80]


async def test_a_pod_template_is_kept_with_its_defaults_and_counts_its_changes() -> None:
    api, path = Api(), "/api/v1/namespaces/default/podtemplates"
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"},
    }
    made = await api("POST", path, {"metadata": {"name": "t"}, "template": template})
    assert (made["template"]["spec"]["dnsPolicy"], made["metadata"]["generation"]) == ("ClusterFirst", 1)
    change = {"template": {"spec": {"restartPolicy": "OnFailure"}}}
    assert (await api("PATCH", f"{path}/t", change))["metadata"]["generation"] == 2
    assert (await api("DELETE", f"{path}/t"))["metadata"]["name"] == "t", "its deletion returns it"


async def test_a_new_pod_says_its_class_of_service_at_once() -> None:
    api, path = Api(), "/api/v1/namespaces/default/pods"
    for name, resources, expected in (
        ("a", {}, "BestEffort"),
        ("b", {"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ("c", {"requests": {"cpu": "1"}}, "Burstable"),
    ):
        spec = {"containers": [{"name": "c", "image": "x", "resources": resources}]}
        assert (await api("POST", path, {"metadata": {"name": name}, "spec": spec}))["status"]["qosClass"] == expected
    wrong = {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "much"}}}]}
    assert (await api.answer("POST", path, {"metadata": {"name": "d"}, "spec": wrong})).status in (400, 422)
