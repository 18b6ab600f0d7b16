"""Slim pods and namespaces: what the whole model says, in less memory, and shared between replicas."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.client import Client
from podplane.kubeapi.informer import Informer
from podplane.model.pod import Pod
from podplane.model.pod_info import HostPort, Labels, NamedPort, NamespaceInfo, PodInfo
from tests.unit.apiserver.test_server import Api

TEXTS = st.text(max_size=4)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=5)


def port(number: int, name: str = "", **more: Any) -> dict[str, Any]:
    return {"containerPort": number} | ({"name": name} if name else {}) | more


def decode(**pod: Any) -> PodInfo:
    return PodInfo.from_json(json.dumps({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}} | pod).encode())


OPTIONAL_PORTS = st.lists(
    st.builds(
        port,
        st.integers(1, 65535),
        st.sampled_from(["", "http", "dns"]),
        protocol=st.sampled_from(["TCP", "UDP"]),
        hostPort=st.sampled_from([0, 80]),
        hostIP=st.sampled_from(["", "10.0.0.1"]),
    ),
    max_size=3,
)
PODS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": TEXTS, "namespace": TEXTS, "uid": TEXTS},
            optional={"labels": LABELS, "deletionTimestamp": st.just("2026-01-01T00:00:00Z"), "annotations": LABELS},
        ),
        "spec": st.fixed_dictionaries(
            {"containers": st.lists(st.fixed_dictionaries({"name": TEXTS, "ports": OPTIONAL_PORTS}), max_size=3)},
            optional={"nodeName": TEXTS, "hostNetwork": st.booleans()},
        ),
        "status": st.fixed_dictionaries(
            {}, optional={"phase": TEXTS, "podIPs": st.lists(st.fixed_dictionaries({"ip": TEXTS}), max_size=2)}
        ),
    }
)


@given(PODS)
def test_it_says_what_the_whole_model_says(object_: dict[str, Any]) -> None:
    raw = json.dumps(object_).encode()
    slim, whole = PodInfo.from_json(raw), msgspec.json.decode(raw, type=Pod)
    for name in ("name", "namespace", "uid", "labels", "path"):
        assert getattr(slim.metadata, name) == getattr(whole.metadata, name)
    assert (slim.node, slim.ips, slim.phase) == (whole.spec.node_name, whole.ips, whole.status.phase)
    assert slim.host_network == whole.spec.host_network
    assert slim.is_terminating == (whole.metadata.deletion_timestamp is not None)
    ports = [declared for container in whole.spec.containers for declared in container.ports]
    assert slim.ports.named == tuple((p.name, p.protocol, p.container_port) for p in ports if p.name)
    assert slim.ports.host == tuple((p.host_ip, p.protocol, p.host_port, p.container_port) for p in ports if p.host_port)
    assert PodInfo.from_json(raw) == slim


def test_ports_of_sidecars_come_last_and_those_of_other_init_containers_never() -> None:
    spec = {
        "initContainers": [
            {"name": "setup", "ports": [port(1, "setup")]},
            {"name": "proxy", "restartPolicy": "Always", "ports": [port(15001, "proxy", hostPort=53, protocol="UDP")]},
        ],
        "containers": [{"name": "main", "ports": [port(8080, "http", hostPort=80, hostIP="10.0.0.1")]}],
    }
    ports = decode(spec=spec).ports
    assert ports.named == (NamedPort("http", "TCP", 8080), NamedPort("proxy", "UDP", 15001))
    assert ports.host == (HostPort("10.0.0.1", "TCP", 80, 8080), HostPort("", "UDP", 53, 15001))


def test_what_is_null_is_as_if_it_was_not_there() -> None:
    metadata = {"name": "web", "namespace": "shop", "uid": "u", "labels": None, "deletionTimestamp": None}
    spec = {"containers": [{"name": "c", "ports": None}], "initContainers": None}
    assert decode(metadata=metadata, spec=spec, status={"podIPs": None}) == decode()


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"metadata":{"labels":[]}}', b'{"metadata":{},"spec":{"hostNetwork":"yes"}}']
)
def test_what_is_no_pod_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        PodInfo.from_json(raw)


def test_replicas_share_their_labels_and_ports() -> None:
    def replica(number: int) -> PodInfo:
        metadata = {"name": f"web-{number}", "namespace": "shop", "uid": str(number), "labels": {"app": "web", "tier": "front"}}
        return decode(
            metadata=metadata, spec={"nodeName": "node-1", "containers": [{"name": "c", "ports": [port(80, "http")]}]}
        )

    one, other = replica(1), replica(2)
    assert one.metadata.labels is other.metadata.labels
    assert one.ports is other.ports
    assert one.node is other.node
    assert one.metadata.namespace is other.metadata.namespace
    relabelled = decode(metadata={"name": "a", "labels": {"app": "".join(["w", "eb"]), "tier": "back"}}).metadata.labels
    assert relabelled["app"] is one.metadata.labels["app"]


@given(LABELS, LABELS)
def test_labels_are_a_mapping_as_a_dict_is_one(some: dict[str, str], others: dict[str, str]) -> None:
    labels = Labels(some)
    assert (dict(labels), len(labels), list(labels)) == (some, len(some), list(some))
    assert (labels == some, labels == others, labels == Labels(others)) == (True, some == others, some == others)
    assert [*labels.pairs()] == [*labels.items()]
    backwards = Labels(dict(reversed(some.items())))
    assert backwards == labels
    assert hash(backwards) == hash(labels)
    for key in {*some, *others}:
        assert (key in labels, labels.get(key), labels.get(key, "-")) == (key in some, some.get(key), some.get(key, "-"))
    for key in others.keys() - some:
        with pytest.raises(KeyError):
            labels[key]
    assert labels != 7
    assert repr(labels) == f"Labels({some})"


@pytest.mark.parametrize(("phase", "ended"), [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True)])
def test_a_pod_that_has_ended(phase: str, ended: bool) -> None:
    assert decode(status={"phase": phase}).has_ended is ended


async def test_informers_of_a_real_server_hold_them() -> None:
    api = Api()
    await api.pod("web")
    client = Client(api.server.handle, "secret")
    pods, namespaces = Informer(client, "pods", PodInfo), Informer(client, "namespaces", NamespaceInfo)
    by_namespace = pods.index(lambda pod: (pod.metadata.namespace,))
    await asyncio.gather(pods.sync(), namespaces.sync())
    assert type(by_namespace.get("default")["default/web"]) is PodInfo
    assert namespaces.objects["default"].metadata.labels["kubernetes.io/metadata.name"] == "default"


def test_a_static_pod_is_known_by_two_uids() -> None:
    metadata = {"name": "a", "uid": "in-the-api", "annotations": {"kubernetes.io/config.hash": "of-the-file"}}
    static = PodInfo.from_json(msgspec.json.encode({"metadata": metadata}))
    ordinary = PodInfo.from_json(msgspec.json.encode({"metadata": {"name": "a", "uid": "u"}}))
    assert [static.is_of(uid) for uid in ("", "in-the-api", "of-the-file", "another")] == [True, True, True, False]
    assert [ordinary.is_of(uid) for uid in ("", "u", "another")] == [True, True, False]
