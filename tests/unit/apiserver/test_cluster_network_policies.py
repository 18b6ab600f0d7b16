"""ClusterNetworkPolicies in the API: there from the start, checked as their published definition says, and a bit more."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_server import Api, Object

POLICIES = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "clusternetworkpolicies.policy.networking.k8s.io"
WHERE: Object = {"networks": ["192.0.2.0/24"]}


def policy(**spec: Any) -> Object:
    spec = {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}} | spec
    return {"metadata": {"name": "p"}, "spec": spec}


def egress(*to: Object, action: str = "Deny", **more: Any) -> Object:
    return policy(egress=[{"action": action, "to": list(to) or [WHERE], **more}])


def port(**numbers: Any) -> Object:
    return egress(protocols=[{"tcp": {"destinationPort": numbers}}])


def definition() -> Object:
    file = resources.files("podplane.apiserver") / "data" / "clusternetworkpolicies.json"
    found: Object = json.loads(file.read_text())["definition"]
    return found


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (policy(tier="Network"), 'spec.tier: Unsupported value: "Network": supported values: "Admin", "Baseline"'),
        (policy(priority=1001), "spec.priority: Invalid value: 1001 is greater than the maximum of 1000"),
        (policy(priority=-1), "spec.priority: Invalid value: -1 is less than the minimum of 0"),
        (policy(subject={}), "spec.subject: Invalid value: {} has less than 1 property"),
        (
            policy(subject={"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}),
            "spec.subject: Invalid value",
        ),
        (egress({}), "spec.egress[0].to[0]: Invalid value"),
        (policy(egress=[{"action": "Deny", "to": []}]), "spec.egress[0].to: Invalid value: [] has less than 1 item"),
        (policy(egress=[{"action": "Deny", "to": [WHERE]}] * 26), "spec.egress: Invalid value"),
        (egress(action="Allow"), 'spec.egress[0].action: Unsupported value: "Allow"'),
        (
            egress({"networks": ["10.0.0.0"]}),
            'spec.egress[0].to[0].networks[0]: Invalid value: "10.0.0.0": Invalid CIDR format provided',
        ),
        (egress({"networks": ["10.0.0.0/33"]}), "Invalid CIDR format provided"),
        (egress({"networks": ["10.0.0.00/8"]}), "Invalid CIDR format provided"),
        (egress({"networks": ["::ffff:10.0.0.0/104"]}), "Invalid CIDR format provided"),
        (egress({"networks": ["fe80::%eth0/64"]}), "Invalid CIDR format provided"),
        (port(range={"start": 9, "end": 9}), "spec.egress[0].protocols[0].tcp.destinationPort.range: "),
        (port(range={"start": 9, "end": 8}), "Start port must be less than End port"),
        (port(number=0), "spec.egress[0].protocols[0].tcp.destinationPort.number: Invalid value"),
        (port(), "spec.egress[0].protocols[0].tcp.destinationPort: Invalid value"),
        (
            egress(protocols=[{"destinationNamedPort": "http"}]),
            "peer cannot be set with namedPorts since there are no namedPorts",
        ),
        (
            egress({"domainNames": ["*.example.org"]}, action="Accept"),
            "spec.egress[0].to[0].domainNames: Forbidden: domain names are not enforced here (yet): say networks instead",
        ),
        (
            egress({"nodes": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            'spec.egress[0].to[0].nodes.matchExpressions[0].operator: Invalid value: "Is"',
        ),
        (policy(subject={"namespaces": {"matchLabels": {"a": "b c"}}}), "spec.subject.namespaces.matchLabels"),
        (
            policy(
                ingress=[
                    {"action": "Deny", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"-": ""}}}}]}
                ]
            ),
            "spec.ingress[0].from[0].pods.podSelector.matchLabels",
        ),
    ],
)
async def test_what_is_refused(body: Object, said: str) -> None:
    found = await Api()("POST", POLICIES, body, 422)
    assert said in found["message"]


async def test_what_only_egress_can_say_is_unknown_of_ingress() -> None:
    body = policy(ingress=[{"action": "Deny", "from": [WHERE]}])
    found = await Api()("POST", POLICIES, body, 400, fieldValidation="Strict")
    assert 'unknown field "spec.ingress[0].from[0].networks"' in found["message"]
    found = await Api()("POST", POLICIES, body, 422)
    assert "spec.ingress[0].from[0]: Invalid value" in found["message"], "without that field it has no peer"


async def test_a_policy_lives_and_is_shown_by_its_short_name_tier_and_priority() -> None:
    api = Api()
    made = await api("POST", POLICIES, egress({"networks": ["10.0.0.1/8"]}, {"nodes": {}}), 201)
    assert made["metadata"]["generation"] == 1
    made["spec"]["priority"] = 20
    assert (await api("PUT", f"{POLICIES}/p", made))["metadata"]["generation"] == 2
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    answer = await api.server.handle(Request("GET", POLICIES, {}, {"authorization": "Bearer secret", "accept": accept}))
    assert isinstance(answer, Response)
    table = json.loads(answer.body)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Tier", "Priority", "Age"]
    assert table["rows"][0]["cells"][:3] == ["p", "Admin", "20"]
    (row,) = (await api("GET", POLICIES.rpartition("/")[0]))["resources"][:1]
    assert (row["shortNames"], row["namespaced"]) == (["cnp"], False)
    await api("DELETE", f"{POLICIES}/p")


async def test_the_published_definition_can_be_applied_and_nothing_is_less_strict_then() -> None:
    api = Api()
    await api("POST", POLICIES, egress(), 201)
    made = await api("POST", CRDS, definition(), 201)
    assert "Established" in [one["type"] for one in made["status"]["conditions"]]
    assert len((await api("GET", POLICIES))["items"]) == 1
    await api("POST", POLICIES, egress({"domainNames": ["example.org"]}) | {"metadata": {"name": "q"}}, 422)
    await api("DELETE", f"{CRDS}/{NAME}")
    assert (await api("GET", POLICIES))["items"] == [], "as on any cluster"
    await api("POST", POLICIES, egress(), 201)
