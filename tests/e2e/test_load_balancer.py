"""Load balancers from the host outside: they are reached, know their clients, let in whom they name, and move without a drop."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from podplane.agent.liveness import RENEW_DEADLINE_SECONDS, RENEW_SECONDS
from tests.e2e.conftest import Kubectl, Podplane, until
from tests.e2e.test_services import LOAD, ask, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("load-balancer")]
OPEN_AT_ONCE = 20
"""Connections of which each is over in a few milliseconds; on a busy machine they take a tenth of a second."""
NODES = {"192.168.1.10", "192.168.1.11", "192.168.1.12"}
VISITOR = {"203.0.113.10", "2001:db8:113::a"}
LOCAL, CLUSTER = {"spec": {"externalTrafficPolicy": "Local"}}, {"spec": {"externalTrafficPolicy": "Cluster"}}


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> Iterator[list[str]]:
    """A Deployment of two, on node1 and node2, its load balancer, and a client outside: the addresses."""
    try:
        kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(_objects())}))
        kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        kubectl("wait", "--for=condition=Ready", "pod/visitor")
        kubectl("wait", "--for=jsonpath={.status.loadBalancer.ingress}", "service/web", "--timeout=20s")
        found = ips(kubectl, "web")
        for ip in found:
            assert "error" not in eventually(kubectl, "visitor", ip)
        yield found
    finally:
        kubectl("delete", "deployment/web", "service/web", "--ignore-not-found")
        kubectl("delete", "pod", "--ignore-not-found", "--now", "visitor")


def _objects() -> Iterator[dict[str, Any]]:
    labels, main = {"app": "web"}, {"name": "main", "image": "podplane/echo"}
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1", "node2"]}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    spec = {
        "affinity": affinity,
        "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": labels}}],
        "containers": [main],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": deployment}
    yield service("web", type="LoadBalancer", ipFamilyPolicy="PreferDualStack")
    client = {"name": "main", "image": "podplane/client"}
    pod = {"nodeName": "outside", "hostNetwork": True, "containers": [client]}
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "visitor"}, "spec": pod}


def service(name: str, **spec: Any) -> dict[str, Any]:
    port = {"port": 80, "targetPort": 8080}
    spec = {"selector": {"app": "web"}, "ports": [port], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def create(kubectl: Kubectl, name: str, **spec: Any) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(service(name, **spec)))


def patch(kubectl: Kubectl, what: str, body: dict[str, Any]) -> None:
    kubectl("patch", what, "--type=merge", "-p", json.dumps(body))


def ips(kubectl: Kubectl, name: str) -> list[str]:
    ingress = json.loads(kubectl("get", "service", name, "-o", "json"))["status"]["loadBalancer"].get("ingress", [])
    return [one["ip"] for one in ingress]


def holder(kubectl: Kubectl) -> str:
    found: str = json.loads(kubectl("get", "lease", "load-balancer-web", "-o", "json"))["spec"]["holderIdentity"]
    return found


def warnings(kubectl: Kubectl, name: str) -> str:
    return kubectl("events", "--for", name, "--types=Warning")


def under_load(kubectl: Kubectl, address: str, what: Any) -> dict[str, Any]:
    """Do it while the client outside sends 200 requests a second; what became of those."""
    load = kubectl.start("exec", "-i", "visitor", "--", "python3", "-c", LOAD, f"http://{address}/")
    assert load.stdout is not None
    assert load.stdout.readline() == "begun\n"
    what()
    time.sleep(0.5)
    out, _ = load.communicate(timeout=60)
    found: dict[str, Any] = json.loads(out)
    return found


def test_it_gets_an_address_of_each_family_that_outside_reaches(web: list[str], kubectl: Kubectl) -> None:
    assert [":" in ip for ip in web] == [False, True]
    for ip in web:
        answers = ask(kubectl, "visitor", ip, 30)
        assert len({answer["name"] for answer in answers}) == 2, answers


def test_a_pods_and_a_nodes_own_view_of_it_is_the_same(web: list[str], kubectl: Kubectl, lab: Podplane) -> None:
    for ip in web:
        host = f"[{ip}]" if ":" in ip else ip
        assert "web-" in lab("exec", "echo-node3-1", "--", "curl", "-sS", "-m", "5", f"http://{host}/").stdout
        assert "web-" in lab.on_node("node3", f"curl -sS -m 5 http://{host}/")


def test_with_policy_local_the_client_is_seen_as_itself(web: list[str], kubectl: Kubectl) -> None:
    patch(kubectl, "service/web", LOCAL)
    try:
        until(lambda: holder(kubectl) in ("node1", "node2"))
        for ip in web:
            eventually(kubectl, "visitor", ip)
            assert {answer["source"] for answer in ask(kubectl, "visitor", ip, 20)} <= VISITOR
    finally:
        patch(kubectl, "service/web", CLUSTER)


def test_node_ports_and_external_ips_are_reached_from_outside(web: list[str], kubectl: Kubectl) -> None:
    port = json.loads(kubectl("get", "service", "web", "-o", "json"))["spec"]["ports"][0]["nodePort"]
    create(kubectl, "external", externalIPs=["192.168.1.12"], ports=[{"port": 8888, "targetPort": 8080}])
    try:
        for node in sorted(NODES):
            assert ask(kubectl, "visitor", f"{node}:{port}")[0]["source"] in NODES | VISITOR
        assert "error" not in eventually(kubectl, "visitor", "192.168.1.12:8888")
    finally:
        kubectl("delete", "service", "external")


def test_only_whom_it_names_comes_in(web: list[str], kubectl: Kubectl) -> None:
    patch(kubectl, "service/web", {"spec": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}})
    try:
        until(lambda: "error" in ask(kubectl, "visitor", web[0])[0])
        patch(kubectl, "service/web", {"spec": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}})
        assert "error" not in eventually(kubectl, "visitor", web[0])
    finally:
        patch(kubectl, "service/web", {"spec": {"loadBalancerSourceRanges": None}})
    assert "error" not in eventually(kubectl, "visitor", web[1])


def test_nodes_come_from_their_own_addresses_whichever_of_them_answers(web: list[str], kubectl: Kubectl, lab: Podplane) -> None:
    patch(kubectl, "service/web", {"spec": {"loadBalancerSourceRanges": ["192.168.1.0/24", "fd00:192:168:1::/64"]}})
    try:
        until(lambda: "error" in ask(kubectl, "visitor", web[0])[0])
        for node in ("node1", "node2", "node3"):
            for ip in web:
                host = f"[{ip}]" if ":" in ip else ip
                assert "web-" in lab.on_node(node, f"curl -sS -m 5 http://{host}/")
    finally:
        patch(kubectl, "service/web", {"spec": {"loadBalancerSourceRanges": None}})


def test_when_its_node_may_not_answer_any_more_another_one_does_and_nothing_is_dropped(
    web: list[str], kubectl: Kubectl
) -> None:
    first = holder(kubectl)
    label = "node.kubernetes.io/exclude-from-external-load-balancers"

    def leave() -> None:
        kubectl("label", "node", first, f"{label}=true")
        until(lambda: holder(kubectl) not in ("", first))

    try:
        found = under_load(kubectl, web[0], leave)
    finally:
        kubectl("label", "node", first, f"{label}-")
    failures = {what: count for what, count in found.items() if what not in ("seconds", "ok")}
    assert all("Connection reset" in what for what in failures), found
    assert sum(failures.values()) <= OPEN_AT_ONCE, "connections that exist at this moment may be reset, and no others"
    assert found["ok"] > 100


def test_an_agent_that_starts_again_drops_nothing_and_writes_nothing(web: list[str], kubectl: Kubectl, lab: Podplane) -> None:
    said: list[str] = []
    found = under_load(
        kubectl, web[0], lambda: said.extend(lab("fault", f"node{n}", "--restart-agent").stdout for n in (1, 2, 3))
    )
    took = [int(milliseconds) / 1000 for line in said for milliseconds in re.findall(r"started again in (\d+) ms", line)]
    assert len(took) == 3, said
    if max(took) > RENEW_DEADLINE_SECONDS - RENEW_SECONDS:
        pytest.skip(
            f"this machine is too busy: an agent took {max(took):g} s to start again, and its lease term is over by then"
        )
    assert all("wrote nothing to the kernel" in line for line in said), said
    assert found.keys() == {"seconds", "ok"}, found
    lab("run", "later", "--node", "node1")
    lab("delete", "pod", "later", "echo-node1-1", "--now")  # what was attached before is known


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
def test_what_somebody_flushes_is_repaired(web: list[str], kubectl: Kubectl, lab: Podplane) -> None:
    ip = json.loads(kubectl("get", "service", "web", "-o", "json"))["spec"]["clusterIP"]
    ask_again = f"until curl -sS --connect-timeout 0.2 -m 5 http://{ip}/ 2>/dev/null | grep -q web-; do sleep 0.02; done"
    script = f"nft flush ruleset; began=$(date +%s%N); {ask_again}; echo $((($(date +%s%N) - began) / 1000000))"
    milliseconds = [int(lab.on_node("node3", script)) for _ in range(3)]
    assert min(milliseconds) < 10_000, "it is noticed by itself, long before all tables are read again"
    assert "frontends4" in lab.on_node("node3", "nft list ruleset")


def test_without_an_address_left_it_waits_and_says_why(web: list[str], kubectl: Kubectl) -> None:
    pool = json.loads(kubectl("get", "lbpool", "default", "-o", "json"))["spec"]["addresses"]
    patch(kubectl, "lbpool/default", {"spec": {"addresses": web}})
    try:
        create(kubectl, "second", type="LoadBalancer")
        until(lambda: "NoLoadBalancerAddress" in warnings(kubectl, "service/second"))
        assert "all IPv4 addresses of default are in use" in warnings(kubectl, "service/second")
        assert ips(kubectl, "web") == web
        patch(kubectl, "lbpool/default", {"spec": {"addresses": pool}})
        until(lambda: ips(kubectl, "second") != [])
        assert "error" not in eventually(kubectl, "visitor", ips(kubectl, "second")[0])
    finally:
        patch(kubectl, "lbpool/default", {"spec": {"addresses": pool}})
        kubectl("delete", "service", "second", "--ignore-not-found")


def test_a_pool_that_makes_no_sense_is_refused(kubectl: Kubectl) -> None:
    pool = {
        "apiVersion": "podplane.dev/v1",
        "kind": "LoadBalancerPool",
        "metadata": {"name": "bad"},
        "spec": {"addresses": ["here"]},
    }
    assert '"here"' in kubectl("create", "-f", "-", stdin=json.dumps(pool), code=1)


def test_of_two_that_want_one_address_and_port_the_second_is_blocked(web: list[str], kubectl: Kubectl) -> None:
    both = {"externalIPs": ["192.168.1.12"], "ports": [{"port": 8899, "targetPort": 8080}]}
    create(kubectl, "one", **both)
    assert "error" not in eventually(kubectl, "visitor", "192.168.1.12:8899")
    try:
        create(kubectl, "two", **both)
        until(lambda: "NotApplied" in warnings(kubectl, "service/two"))
        text = warnings(kubectl, "service/two")
        assert "192.168.1.12 tcp 8899 belongs to service/default/one" in text
        assert text.count("belongs to") == 1, "all nodes say it together"
        assert "error" not in ask(kubectl, "visitor", "192.168.1.12:8899")[0]
        assert "error" not in ask(kubectl, "visitor", web[0])[0]
        kubectl("delete", "service", "one")
        assert "error" not in eventually(kubectl, "visitor", "192.168.1.12:8899")
    finally:
        kubectl("delete", "service", "one", "two", "--ignore-not-found")


def test_services_spread_over_nodes(web: list[str], kubectl: Kubectl) -> None:
    names = [f"many-{n}" for n in range(9)]
    objects = [service(name, type="LoadBalancer") for name in names]
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    try:

        def holders() -> Counter[str]:
            found = json.loads(kubectl("get", "lease", "-o", "json"))["items"]
            own = [x for x in found if x["metadata"]["labels"].get("podplane.dev/load-balancer", "").startswith("many-")]
            return Counter(one["spec"].get("holderIdentity", "") for one in own)

        until(lambda: holders().total() == len(names) and "" not in holders())
        assert len(holders()) >= 2
    finally:
        kubectl("delete", "service", *names)
    until(lambda: "many-" not in kubectl("get", "leases", "-o", "name"))


def test_a_service_that_flaps_a_hundred_times_a_second_disturbs_no_other(
    web: list[str], kubectl: Kubectl, lab: Podplane
) -> None:
    create(kubectl, "restless")
    api = lab.api

    def flap() -> None:
        end, count = time.monotonic() + 2, 0
        while time.monotonic() < end or count <= 100:  # a busy machine needs longer for as many
            selector = {"app": "web"} if count % 2 else {"app": "nobody"}
            api.patch("services", "default", "restless", {"spec": {"selector": selector}})
            count += 1
            time.sleep(0.005)
        api.patch("services", "default", "restless", {"spec": {"selector": {"app": "web"}}})

    try:
        found = under_load(kubectl, web[0], flap)
        assert found.keys() == {"seconds", "ok"}, found
        ip = json.loads(kubectl("get", "service", "restless", "-o", "json"))["spec"]["clusterIP"]
        until(lambda: "web-" in lab("exec", "echo-node3-1", "--", "curl", "-sS", "-m", "2", f"http://{ip}/", code=None).stdout)
    finally:
        kubectl("delete", "service", "restless")


def test_a_node_without_a_default_route_reaches_services(web: list[str], kubectl: Kubectl, lab: Podplane) -> None:
    ip = json.loads(kubectl("get", "service", "web", "-o", "json"))["spec"]["clusterIP"]
    lab.on_node("node3", "ip route del default")
    try:
        assert "web-" in lab.on_node("node3", f"curl -sS -m 5 http://{ip}/")
    finally:
        lab.on_node("node3", "ip route add default via 192.168.1.1 dev eth0")
