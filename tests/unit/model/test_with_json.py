"""What is kept of an object says all that is read of it: whoever decodes it has the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given

from podplane.model.cluster_policy import ClusterNetworkPolicy
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from tests.unit.model.test_pod_info import PODS
from tests.unit.policy.objects import clusters

KINDS: dict[str, Any] = {
    "Pod": PodInfo,
    "Namespace": NamespaceInfo,
    "NetworkPolicy": NetworkPolicy,
    "ClusterNetworkPolicy": ClusterNetworkPolicy,
}


def holds(kind: Any, object_: Any) -> bytes:
    raw = msgspec.json.encode(object_)
    model, kept = kind.with_json(raw)
    assert model == kind.from_json(raw) == kind.from_json(kept)
    assert kind.with_json(kept) == (model, kept), "and so on for ever"
    assert b"\n" not in kept and b"\t" not in kept
    return bytes(kept)


@given(PODS)
def test_of_pods(object_: dict[str, Any]) -> None:
    holds(PodInfo, object_)


@given(clusters())
def test_of_all_that_policies_are_about(objects: list[dict[str, Any]]) -> None:
    for one in objects:
        if one["kind"] in KINDS:
            holds(KINDS[one["kind"]], one)


@pytest.mark.parametrize(
    "spec",
    [
        {"policyTypes": ["Both"], "podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}},
        {"ingress": [{"from": [{"dnsNames": ["example.com"]}]}], "policyTypes": ["Ingress"]},
        {"egress": [{"ports": [{"protocol": "QUIC", "port": 1}]}, {}], "ingress": None},
    ],
)
def test_of_parts_that_a_later_version_may_know(spec: dict[str, Any]) -> None:
    """They deny, and so does what is kept of them."""
    holds(NetworkPolicy, {"metadata": {"name": "a", "namespace": "b", "uid": "c", "labels": {"x": "y"}}, "spec": spec})
    rules = [{"action": "Deny", "from": [{"domainNames": ["example.com"]}]}]
    cluster = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": rules}
    kept = holds(ClusterNetworkPolicy, {"metadata": {"name": "a", "managedFields": [{}] * 9}, "spec": cluster})
    assert b"managedFields" not in kept
