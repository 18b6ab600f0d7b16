"""Clients that nobody here wrote: `kubernetes` and `lightkube` list, watch, resume, patch, apply and delete as they do anywhere."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import kubernetes
import lightkube
import pytest
import yaml
from kubernetes.stream import stream
from lightkube import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec, ServicePort, ServiceSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta, OwnerReference
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Service
from lightkube.types import CascadeType, PatchType

from tests.e2e.conftest import Podplane

pytestmark = pytest.mark.e2e
NAMES = (f"o{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def core(lab: Podplane) -> Iterator[kubernetes.client.CoreV1Api]:
    """The official Python client."""
    with kubernetes.config.new_client_from_config(str(lab.folder.kubeconfig)) as client:
        yield kubernetes.client.CoreV1Api(client)


@pytest.fixture(scope="module")
def light(lab: Podplane) -> Iterator[lightkube.Client]:
    """lightkube."""
    with lightkube.Client(config=KubeConfig.from_file(str(lab.folder.kubeconfig)), namespace="default") as client:
        yield client


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"by": "test"}}, "data": data}


def test_kubernetes_lists_pages_and_selects(core: kubernetes.client.CoreV1Api) -> None:
    assert [node.metadata.name for node in core.list_node().items] == ["node1", "node2", "node3"]
    first = core.list_pod_for_all_namespaces(limit=4)
    rest = core.list_pod_for_all_namespaces(limit=4, _continue=first.metadata._continue)
    assert (len(first.items), len(rest.items), first.metadata.remaining_item_count) == (4, 2, 2)
    on_node2 = core.list_namespaced_pod("default", field_selector="spec.nodeName=node2")
    assert [pod.metadata.name for pod in on_node2.items] == ["echo-node2-1", "echo-node2-2"]
    assert on_node2.items[0].status.pod_ip == "10.244.2.2"


def test_kubernetes_watches_and_resumes_where_it_was_cut(core: kubernetes.client.CoreV1Api) -> None:
    version = core.list_namespaced_config_map("default").metadata.resource_version
    names = list(itertools.islice(NAMES, 4))
    for name in names[:2]:
        core.create_namespaced_config_map("default", config_map(name))
    watch = kubernetes.watch.Watch()
    seen = []
    for event in watch.stream(core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=20):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 1:
            watch.stop()  # the connection is cut: the second event was not read
    resumed = watch.resource_version
    for name in names[2:]:
        core.create_namespaced_config_map("default", config_map(name))
    again = kubernetes.watch.Watch()
    for event in again.stream(core.list_namespaced_config_map, "default", resource_version=resumed, timeout_seconds=20):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 4:
            again.stop()
    assert seen == [("ADDED", name) for name in names]
    core.delete_collection_namespaced_config_map("default", label_selector="by=test")
    assert core.list_namespaced_config_map("default", label_selector="by=test").items == []


def test_kubernetes_patches_conflicts_and_deletes(core: kubernetes.client.CoreV1Api) -> None:
    name = next(NAMES)
    made = core.create_namespaced_config_map("default", config_map(name, a="1"))
    patched = core.patch_namespaced_config_map(name, "default", {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}
    with pytest.raises(kubernetes.client.ApiException) as conflict:
        core.replace_namespaced_config_map(name, "default", made)
    assert (conflict.value.status, yaml.safe_load(conflict.value.body)["reason"]) == (409, "Conflict")
    gone = core.delete_namespaced_config_map(name, "default")
    assert (gone if isinstance(gone, dict) else gone.to_dict())["status"] == "Success"
    with pytest.raises(kubernetes.client.ApiException) as missing:
        core.read_namespaced_config_map(name, "default")
    assert missing.value.status == 404


def test_kubernetes_runs_a_command(core: kubernetes.client.CoreV1Api) -> None:
    said = stream(
        core.connect_get_namespaced_pod_exec, "echo-node1-1", "default", command=["echo", "hello"], stdout=True, stderr=True
    )
    assert said == "hello\n"


def test_lightkube_lists_watches_and_resumes(light: lightkube.Client) -> None:
    assert [node.metadata.name for node in light.list(Node)] == ["node1", "node2", "node3"]
    listed = light.list(ConfigMap, labels={"by": "light"})
    assert list(listed) == []
    version = listed.resourceVersion
    names = list(itertools.islice(NAMES, 2))
    seen = []
    for name in names:
        light.create(ConfigMap(metadata=ObjectMeta(name=name, labels={"by": "light"})))
        for kind, found in light.watch(ConfigMap, labels={"by": "light"}, resource_version=version, server_timeout=20):
            seen.append((kind, found.metadata.name))
            version = found.metadata.resourceVersion
            break  # the connection is cut here
    assert seen == [("ADDED", name) for name in names]
    for name in names:
        light.delete(ConfigMap, name)


def test_lightkube_replaces_patches_scales_and_applies(light: lightkube.Client) -> None:
    name = next(NAMES)
    service = Service(metadata=ObjectMeta(name=name), spec=ServiceSpec(ports=[ServicePort(port=80)], selector={"app": name}))
    made = light.create(service)
    assert (made.spec.type, made.spec.ports[0].targetPort, made.spec.ports[0].protocol) == ("ClusterIP", 80, "TCP")
    made.spec.ports[0].targetPort = 8080
    assert light.replace(made).spec.ports[0].targetPort == 8080
    light.patch(Service, name, {"metadata": {"labels": {"a": "b"}}}, patch_type=PatchType.MERGE)
    change = {"spec": {"ports": [{"port": 81, "name": "more"}, {"port": 80, "name": "http"}]}}
    found = light.patch(Service, name, change, patch_type=PatchType.STRATEGIC)
    assert {port.port: port.targetPort for port in found.spec.ports} == {80: 8080, 81: 81}
    with pytest.raises(ApiError) as refused:
        light.apply(service, field_manager="test")
    assert "server-side apply is not served yet" in refused.value.status.message
    light.delete(Service, name)


def deployment(name: str) -> Deployment:
    labels = {"app": name}
    pods = PodTemplateSpec(metadata=ObjectMeta(labels=labels), spec=PodSpec([Container(name="main", image="podplane/echo")]))
    spec = DeploymentSpec(selector=LabelSelector(matchLabels=labels), template=pods, replicas=1)
    return Deployment(metadata=ObjectMeta(name=name), spec=spec)


@pytest.mark.parametrize(
    ("cascade", "stays"), [(CascadeType.BACKGROUND, False), (CascadeType.FOREGROUND, False), (CascadeType.ORPHAN, True)]
)
def test_lightkube_deletes_with_what_belongs_to_it(light: lightkube.Client, cascade: CascadeType, stays: bool) -> None:
    name = next(NAMES)
    owner = light.create(deployment(name))
    reference = OwnerReference("apps/v1", "Deployment", name, owner.metadata.uid, blockOwnerDeletion=True, controller=True)
    light.create(ConfigMap(metadata=ObjectMeta(name=name, ownerReferences=[reference])))
    light.delete(Deployment, name, cascade=cascade)
    end = time.monotonic() + 10  # in the foreground it stays until its pods are gone
    while [found for found in light.list(Deployment) if found.metadata.name == name]:
        assert cascade == CascadeType.FOREGROUND
        assert time.monotonic() < end
        time.sleep(0.05)
    if not stays:
        with pytest.raises(ApiError):
            light.get(ConfigMap, name)
        return
    assert not light.get(ConfigMap, name).metadata.ownerReferences
    light.delete(ConfigMap, name)


def test_lightkube_waits_for_a_pod(light: lightkube.Client) -> None:
    name = next(NAMES)
    light.create(Pod(metadata=ObjectMeta(name=name), spec=PodSpec([Container(name="main", image="podplane/echo")])))
    assert light.wait(Pod, name, for_conditions=["Ready"]).status.podIP.startswith("10.244.")
    light.delete(Pod, name, grace_period=0)


IN_A_POD = """
import json, ssl, sys, urllib.request
token = sys.stdin.readline().strip()
ask = urllib.request.Request("https://192.168.1.1:6443/api/v1/nodes", headers={"Authorization": "Bearer " + token})
context = ssl.create_default_context(cadata=sys.stdin.read())
print([node["metadata"]["name"] for node in json.load(urllib.request.urlopen(ask, context=context, timeout=10))["items"]])
"""


def test_a_pod_reaches_the_api_with_its_service_accounts_token(lab: Podplane, core: kubernetes.client.CoreV1Api) -> None:
    core.create_namespaced_service_account("default", {"metadata": {"name": "robot"}})
    request = {"spec": {"expirationSeconds": 600}}
    token = core.create_namespaced_service_account_token("robot", "default", request).status.token
    said = lab(
        *("exec", "-i", "echo-node2-1", "--", "python3", "-c", IN_A_POD), stdin=f"{token}\n{lab.folder.endpoint().ca}"
    ).stdout
    assert said == "['node1', 'node2', 'node3']\n"
    core.delete_namespaced_service_account("robot", "default")
