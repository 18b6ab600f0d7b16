"""`check` among Services of all sorts: a healthy lab is called healthy, and a Service that can't be reached from outside is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Kubectl, Podplane, running
from tests.e2e.test_load_balancer import ips, service

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("check-services")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """Two nodes, node ports on IPv4 addresses only."""
    with running(
        tmp_path_factory, "--nodes", "2", "--pods-per-node", "2", "--node-port-addresses", "192.168.1.0/24"
    ) as started:
        yield started


@pytest.fixture(scope="module")
def many(kubectl: Kubectl) -> None:
    """Services of all sorts."""
    kubectl("label", "pod", "echo-node1-1", "here=yes")
    one, balanced = {"selector": {"here": "yes"}}, {"type": "LoadBalancer", "selector": {"run": "echo"}}
    services = [
        service("inside", internalTrafficPolicy="Local", **one),
        service("near", type="NodePort", externalTrafficPolicy="Local", ipFamilyPolicy="PreferDualStack", **one),
        service("open", ipFamilyPolicy="PreferDualStack", **balanced),
        service("chosen", loadBalancerSourceRanges=["203.0.113.0/24"], **balanced),
        service("closed", loadBalancerSourceRanges=["10.0.0.0/8"], **balanced),
        service("foreign", loadBalancerClass="example.com/x", **balanced),
        service("others", **one),
    ]
    services[-1]["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "mine"}
    kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": services}))
    for name in ("open", "chosen", "closed"):
        kubectl("wait", "--for=jsonpath={.status.loadBalancer.ingress}", f"service/{name}", "--timeout=20s")


def checked(lab: Podplane, code: int) -> dict[str, Any]:
    """Promise → what was found, and whether all is kept."""
    result = json.loads(lab("check", "--json", code=code).stdout)
    return {row["promise"]: row for row in result["promises"]} | {"left_out": result["left_out"]}


def test_services_of_all_sorts_keep_their_promises(lab: Podplane, many: None) -> None:
    found = checked(lab, 0)
    assert found["left_out"] == []
    own = 2 * 2 + 2 * 2  # load balancers in two families, node ports of two nodes in one
    users = (
        3 + 4 * 2 + 1
    )  # load balancers: two of `open`, one of `chosen`; node ports: of the four at two nodes, of `near` at one
    assert found["service-from-outside"]["probes"] == own + users


@pytest.mark.skipif(not shutil.which("nft"), reason="breaking a network takes `nft`")
def test_what_is_not_reached_from_outside_is_named(lab: Podplane, many: None, kubectl: Kubectl) -> None:
    (ip,) = ips(kubectl, "chosen")
    port = json.loads(kubectl("get", "service", "near", "-o", "json"))["spec"]["ports"][0]["nodePort"]
    hook = "'{ type filter hook prerouting priority -300; }'"
    rules = [
        f"nft add rule inet broken pre ip saddr 203.0.113.10 ip daddr {ip} drop",
        f"nft add rule inet broken pre tcp dport {port} drop",
    ]
    for node in ("node1", "node2"):
        lab.on_node(node, f"nft add table inet broken; nft add chain inet broken pre {hook}; {'; '.join(rules)}")
    found = checked(lab, 1)
    assert [promise for promise, row in found.items() if promise != "left_out" and not row["ok"]] == ["service-from-outside"]
    assert sorted(found["service-from-outside"]["failures"]) == [
        f"outside → Service default/chosen {ip} open: expected an answer, got no answer",
        "outside → Service default/near 192.168.1.10 open: expected an answer, got no answer",
    ]
