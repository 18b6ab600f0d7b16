"""`podplane dns`: what a pod gets for a name, and why; how the name servers are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.cli.dns.asking import HOST_NETWORK_NOTE
from tests.e2e.conftest import Podplane

Object = dict[str, Any]


@pytest.fixture(scope="module")
def named(lab: Podplane) -> Iterator[Podplane]:
    """The lab with Services of two namespaces, and pods of several policies."""
    api = lab.api
    api.create("namespaces", "", {"metadata": {"name": "shop"}})
    for namespace, name, spec in (
        ("default", "web", {"ports": [{"name": "http", "port": 80}]}),
        ("default", "none", {"clusterIP": "None", "ports": [{"port": 80}]}),
        ("shop", "api", {"ports": [{"port": 80}]}),
    ):
        api.create("services", namespace, {"metadata": {"name": name}, "spec": spec})
    pod(lab, "in-host-network", hostNetwork=True)
    pod(lab, "asks-others", dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]})
    pod(lab, "waits", nodeSelector={"no": "such-node"}, hostAliases=[{"ip": "192.0.2.7", "hostnames": ["db"]}])
    yield lab
    for name in ("in-host-network", "asks-others", "waits"):
        api.delete("pods", "default", name, grace=0)
    for namespace, name in (("default", "web"), ("default", "none"), ("shop", "api")):
        api.delete("services", namespace, name)
    api.delete("namespaces", "", "shop")


def pod(lab: Podplane, name: str, **spec: Any) -> None:
    container = {"name": "main", "image": "host/sleep", "command": ["sleep", "infinity"]}
    lab.api.create("pods", "default", {"metadata": {"name": name}, "spec": {"containers": [container], **spec}})


def asked(lab: Podplane, *words: str, code: int = 0) -> Object:
    found: Object = json.loads(lab("dns", "query", *words, "-o", "json", code=code).stdout)
    return found


def test_a_pod_gets_what_its_resolver_gets(named: Podplane) -> None:
    """The end of the tries is what glibc says in the pod itself."""
    for name in ("web", "api.shop", "kubernetes.default.svc.cluster.local"):
        result = asked(named, name, "--from", "echo-node1-1")["result"]
        assert [
            line.split()[0] for line in named("exec", "echo-node1-1", "--", "getent", "hosts", name).stdout.splitlines()
        ] == result


def test_each_name_is_shown_with_its_object_or_why_there_is_none(named: Podplane) -> None:
    found = asked(named, "api.shop", "--from", "default/echo-node2-1", "-t", "a")
    (one,) = found["tries"]
    assert one["name"] == "api.shop.default.svc.cluster.local."
    assert one["answers"][0]["source"] == "the search path, Service shop/api"
    assert found["from"]["node"] == "node2" and found["from"]["ndots"] == 5
    missing = asked(named, "nothing.shop", "--from", "default/echo-node2-1", "-t", "a", code=1)
    assert missing["tries"][0]["answers"][0]["why"] == "there is no Service shop in namespace default"
    assert missing["tries"][1]["answers"][0]["why"] == "there is no Service nothing in namespace shop"
    text = named("dns", "query", "api", "--from", "pod/echo-node1-1", code=1).stdout
    assert "there is no Service api in namespace default; there is one in namespace shop" in text
    assert (
        "Service default/none is headless, and it has no endpoints"
        in named("dns", "query", "none.default.svc.cluster.local", code=1).stdout
    )


def test_ports_have_srv_records_and_nodes_ask_too(named: Podplane) -> None:
    found = asked(named, "_http._tcp.web.default.svc.cluster.local", "--node", "node3", "-t", "SRV")
    assert found["result"] == ["0 100 80 web.default.svc.cluster.local."]
    assert found["from"]["node"] == "node3" and found["from"]["pod"] == ""


def test_pods_that_ask_otherwise(named: Podplane) -> None:
    assert HOST_NETWORK_NOTE in named("dns", "query", "web", "--from", "in-host-network", code=None).stdout
    others = named("dns", "query", "web", "--from", "asks-others", code=1).stdout
    assert "it does not ask the cluster's DNS, but 192.0.2.1: what that answers is not known here" in others
    waits = named("dns", "query", "web", "--from", "waits").stdout
    assert "it has no address yet (Pending): this is what node1 itself is answered" in waits
    assert asked(named, "db", "--from", "waits")["hosts"] == ["192.0.2.7"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("web", "--from", "nope"), 'pods "nope" not found'),
        (("web", "--from", "nope/web"), 'pods "web" not found'),
        (("web", "--from", "a/b/c"), "'a/b/c' is no pod: write web-1, or shop/web-1 for one of namespace shop"),
        (("web", "--node", "node9"), "there is no node 'node9': this lab has node1, node2, node3"),
        (("web", "--from", "x", "--node", "node1"), "say --from or --node, not both: a pod asks from its own node"),
        (("web", "-t", "foo"), "'FOO' is no type of records: write A, AAAA, SRV, PTR, TXT, or TYPE and a number"),
        (("a..b",), "'a..b' is no name: there is nothing between two dots, or no letter at all"),
        (("x" * 64,), f"'{'x' * 64}' is no name: a part of it, between two dots, has more than 63 characters"),
        ((".".join(["x" * 60] * 5),), f"'{'.'.join(['x' * 60] * 5)}' is no name: it has more than 253 characters"),
        (("müller",), "'müller' has letters that DNS does not have: write it in its ASCII form (xn--…)"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_is_one_line(lab: Podplane, words: tuple[str, ...], said: str) -> None:
    assert lab("dns", "query", *words, code=2).stderr.strip() == f"podplane: {said}"


def test_each_node_has_a_server_that_answers(lab: Podplane) -> None:
    found = json.loads(lab("dns", "status", "-o", "json", code=None).stdout)["nodes"]
    assert [one["node"] for one in found] == ["node1", "node2", "node3"]
    assert all(one["missing"] == [] and one["config"]["error"] == "" and one["api"]["is_reached"] for one in found)
    services = len(lab.api.objects("services"))
    assert {cache["objects"] for one in found for cache in one["caches"] if cache["resource"] == "services"} == {services}
    assert "The name server of node2 answers, for " in lab("dns", "status", "--node", "node2", code=None).stdout


def test_a_wrong_configuration_is_said(lab: Podplane) -> None:
    """By the command, and in one line of `podplane status`."""
    before = lab.api.get("configmaps", "kube-system", "podplane-dns")["data"]
    lab.api.patch("configmaps", "kube-system", "podplane-dns", {"data": {"config.yaml": "ttl: long"}})
    try:
        for _ in range(100):
            said = lab("dns", "status", code=None).stdout
            if "podplane-dns: " in said:
                break
        assert "; the last good configuration goes on" in said
        assert "  names   node1, node2, node3: ConfigMap kube-system/podplane-dns: " in lab("status").stdout
        assert lab("dns", "status", "--node", "node1", code=1).stdout.count("; the last good configuration goes on") == 1
    finally:
        lab.api.patch("configmaps", "kube-system", "podplane-dns", {"data": before})


def test_a_node_that_there_is_not(lab: Podplane) -> None:
    assert (
        lab("dns", "status", "--node", "x", code=2).stderr
        == "podplane: there is no node 'x': this lab has node1, node2, node3\n"
    )


def test_while_a_server_is_away_another_one_is_asked(lab: Podplane) -> None:
    lab("fault", "node1", "--stop-name-server")
    try:
        done = lab("dns", "query", "kubernetes", "--from", "echo-node1-1")
        assert (
            "the name server of node1 does not answer: that of node2 is asked in its place (no answer within 3 s (the fault"
            in done.stdout
        )
        assert done.stdout.rstrip().endswith("default/echo-node1-1 gets 10.96.0.1 for kubernetes, after 2 questions.")
    finally:
        lab("fault", "node1", "--clear")
