"""Mistakes in policies, each as it is named, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from podplane.policy import lint as lint_module
from podplane.policy.covering import covers
from podplane.policy.findings import Finding, Mistake
from podplane.policy.lint import Linter
from podplane.policy.world import World
from tests.unit.policy.cluster import Object, namespace, pod, policy

HTTP = [{"name": "http", "containerPort": 8080}, {"containerPort": 9090, "protocol": "UDP"}]
DNS_RULE = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}],
}
KUBE_DNS = {
    "kind": "Service",
    "metadata": {"name": "kube-dns", "namespace": "kube-system"},
    "spec": {"clusterIPs": ["10.96.0.10"]},
}
WEB = {
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80, "targetPort": "http"}]},
}
OBJECTS = [
    {"kind": "Node", "metadata": {"name": "node1"}, "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]}},
    *(namespace(name, **{"kubernetes.io/metadata.name": name}) for name in ("default", "shop", "kube-system")),
    pod("default/web-1", {"app": "web"}, "10.244.1.2", ports=HTTP),
    pod("default/web-2", {"app": "web"}, "10.244.1.3", ports=HTTP),
    pod("default/client", {"app": "client"}, "10.244.1.4"),
    KUBE_DNS,
    WEB,
]
RESOURCES = {"NetworkPolicy": "networkpolicies.networking.k8s.io"}


def world(*more: Object, without: str = "") -> World:
    found = World()
    for one in (*OBJECTS, *more):
        metadata = one["metadata"]
        path = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        if metadata["name"] != without:
            found.set(RESOURCES.get(one["kind"], f"{one['kind'].lower()}s"), path, one)
    return found


def lint(spec: str | Object, *more: Object, path: str = "default/p", without: str = "", beside: bool = True) -> list[Finding]:
    whole = yaml.safe_load(spec) if isinstance(spec, str) else spec
    cluster = world(policy(path, **{"podSelector": {}} | whole), *more, without=without)
    found = cluster.index.policy(path)
    assert found is not None
    return list(Linter(cluster).of(found, beside=beside))


def said(*arguments: Any, **options: Any) -> list[str]:
    return [f"{one.where}: {one.text}" for one in lint(*arguments, **options)]


def test_what_selects_no_pod() -> None:
    spec = "{podSelector: {matchLabels: {app: wbe}}}"
    assert said(spec) == [": selects no pod so far: no pod of namespace default has app=wbe"]
    many = {"podSelector": {"matchLabels": {f"l{n:03}": "x" for n in range(1000)}}}
    (found,) = said(many)
    assert found.endswith("has l000=x,l001=x,l002=x,l003=x,l004=x,l005=x,… and 994 more labels")
    assert said("{}", path="shop/p") == [": selects no pod so far: its namespace has no pod"]
    assert said("{}") == []


def test_a_label_that_no_namespace_has() -> None:
    rule = "{ingress: [{from: [{namespaceSelector: {matchLabels: {%s}}}]}]}"
    assert said(rule % "team: a") == ["ingress rule 1: no namespace has team=a"]
    assert said(rule % "name: shop") == [
        "ingress rule 1: no namespace has name=shop; the label kubernetes.io/metadata.name=shop selects the namespace of that name"
    ]
    assert said(rule % "kubernetes.io/metadata.name: shop") == []
    assert said("{ingress: [{from: [{namespaceSelector: {}}]}]}") == []


@pytest.mark.parametrize(
    ("port", "text"),
    [
        ("{port: 80}", "TCP 80 is the port of Service default/web; policies are about the port of its pods, http"),
        ("{port: 81}", "none of the pods declares TCP 81, and no Service leads to it"),
        ("{port: 8080, protocol: UDP}", "none of the pods declares UDP 8080, and no Service leads to it"),
        ("{port: web}", "none of the pods has a TCP port named web"),
        ("{port: http, protocol: UDP}", "none of the pods has a UDP port named http, but a TCP port"),
        ("{port: 8080}", ""),
        ("{port: http}", ""),
        ("{port: 9090, protocol: UDP}", ""),
        ("{port: 79, endPort: 81}", ""),
        ("{protocol: UDP}", ""),
    ],
)
def test_a_port_that_no_pod_serves(port: str, text: str) -> None:
    ingress = f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: [{port}]}}]}}"
    assert said(ingress) == ([f"ingress rule 1: {text}"] if text else [])
    to = f"{{to: [{{podSelector: {{matchLabels: {{app: web}}}}}}], ports: [{port}]}}"
    egress = {"podSelector": {"matchLabels": {"app": "client"}}, "egress": [yaml.safe_load(to), DNS_RULE]}
    assert said(egress) == ([f"egress rule 1: {text}"] if text else [])


def test_pods_that_declare_no_ports_may_serve_any() -> None:
    assert said("{ingress: [{ports: [{port: 81}]}]}") == []
    service = {
        **WEB,
        "metadata": {"name": "w", "namespace": "default"},
        "spec": {**WEB["spec"], "ports": [{"port": 82, "targetPort": 81}]},
    }
    web = "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 81}]}]}"
    assert said(web, service) == []
    assert said("{policyTypes: [Egress], egress: [{ports: [{port: 81}, {port: 53, protocol: UDP}]}]}") == []


def test_blocks_that_mean_pods_or_services() -> None:
    rule = "{ingress: [{from: [{ipBlock: {cidr: '%s'}}]}]}"
    pods = "ingress rule 1: {} has addresses of pods; another pod may have them later, so select pods by labels"
    assert said(rule % "10.244.1.2/32") == [pods.format("10.244.1.2/32")]
    assert said(rule % "fd00:1::/64") == [pods.format("fd00:1::/64")]
    assert said(rule % "10.96.0.5/32") == [
        "ingress rule 1: 10.96.0.5 (Service default/web) is the address of a Service; policies are about the pods behind it"
    ]
    for fine in ("10.96.0.10/32", "0.0.0.0/0", "10.244.0.0/16", "203.0.113.7/32", "::/0"):
        assert said(rule % fine) == []
    many = ", ".join(f"{{ipBlock: {{cidr: 10.244.1.{n}/32}}}}" for n in range(5))
    assert "10.244.1.2/32 and 2 more has" in said(f"{{ingress: [{{from: [{many}]}}]}}")[0]


def test_a_rule_that_another_one_covers() -> None:
    client, both = "{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 8080}]}", "{from: [{podSelector: {}}]}"
    web = "podSelector: {matchLabels: {app: web}}, ingress"
    assert said(f"{{{web}: [{client}, {both}]}}") == ["ingress rule 1: allows nothing that ingress rule 2 does not"]
    assert said(f"{{{web}: [{client}, {client}]}}") == ["ingress rule 2: allows nothing that ingress rule 1 does not"]
    wide = policy("default/all", podSelector={}, ingress=[yaml.safe_load(both)])
    assert said(f"{{{web}: [{client}]}}", wide) == ["ingress rule 1: allows nothing that default/all ingress rule 1 does not"]
    assert said(f"{{{web}: [{client}]}}", wide, beside=False) == []
    assert said(f"{{ingress: [{both}]}}", wide) == ["ingress rule 1: allows nothing that default/all ingress rule 1 does not"]
    assert said(f"{{ingress: [{both}]}}", wide, path="default/a") == []
    narrow = policy("default/all", podSelector={"matchLabels": {"app": "other"}}, ingress=[yaml.safe_load(both)])
    assert said(f"{{{web}: [{client}]}}", narrow) == []
    assert said(f"{{{web}: [{client}]}}", policy("default/deny", podSelector={})) == []


def test_a_policy_that_cuts_names_off() -> None:
    web = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}
    text = ": default/web-1, default/web-2 can't ask the cluster's DNS: no egress rule allows UDP 53 to it"
    assert said(web) == [text]
    assert said({**web, "egress": [DNS_RULE]}) == []
    assert said(web, policy("default/dns", podSelector={}, egress=[DNS_RULE])) == []
    assert said(web, without="kube-dns") == []
    first = policy("default/deny", podSelector={}, policyTypes=["Egress"])
    assert said(web, first) == []
    pods = {**KUBE_DNS, "spec": {"clusterIPs": ["10.96.0.10"], "selector": {"k8s-app": "kube-dns"}}}
    server = pod(
        "kube-system/coredns",
        {"k8s-app": "kube-dns"},
        "10.244.1.9",
        ports=[{"name": "dns", "containerPort": 53, "protocol": "UDP"}],
    )
    assert said(web, pods, server) == [text]
    assert said({**web, "egress": [{**DNS_RULE, "ports": [{"port": "dns", "protocol": "UDP"}]}]}, pods, server) == []


def test_what_is_not_known_is_told_and_covers_nothing() -> None:
    rules = [{"from": [{"podSelector": {}}, {"future": {}}]}, {"from": [{"podSelector": {}}]}]
    found = lint({"ingress": rules})
    assert [one.mistake for one in found] == [Mistake.NOT_READ]
    assert str(found[0]).startswith("default/p: ingress rule 1: ")


def test_the_usual_recipes_have_no_mistakes() -> None:
    for spec in (
        "{}",
        "{ingress: [{}]}",
        "{policyTypes: [Ingress], ingress: []}",
        {"egress": [DNS_RULE], "policyTypes": ["Egress"]},
    ):
        assert said(spec) == []
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}
    assert said({"policyTypes": ["Egress"], "egress": [{"to": [block]}, DNS_RULE]}) == []


def test_whoever_waits_is_asked_between_two_rules() -> None:
    """A policy of many rules is not looked at for longer than somebody waits for it."""
    rules = [{"ports": [{"port": number}]} for number in range(1, 200)]
    cluster = world(policy("default/p", podSelector={}, ingress=rules))
    found = cluster.index.policy("default/p")
    assert found is not None
    left = iter(range(50))

    def tick() -> None:
        if next(left, None) is None:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        list(Linter(cluster, tick).of(found))
    assert [one.where for one in Linter(cluster).of(found)] == ["ingress rule 80"]


def test_of_policies_beside_each_rule_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowing(app: str) -> list[Object]:
        return [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]

    others = [policy(f"default/p{n}", podSelector={}, ingress=allowing(f"c{n}")) for n in range(20)]
    compared = list[bool]()
    monkeypatch.setattr(lint_module, "covers", lambda wide, narrow: compared.append(covers(wide, narrow)) or compared[-1])
    assert lint({"ingress": allowing("client")}, *others) == []
    assert compared == [False] * 20
    assert [one.mistake for one in lint({"ingress": allowing("c7")}, *others, path="default/z")] == [Mistake.COVERED]
