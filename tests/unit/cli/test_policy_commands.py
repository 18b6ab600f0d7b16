"""What the commands about policies say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from podplane.cli.policy import listed, reached, show
from podplane.cli.policy.cluster import check_namespace
from podplane.cli.policy.grouped import group_names
from podplane.cli.policy.judged import Judgement, judge
from podplane.cli.policy.places import wanted
from podplane.lab.errors import LabError
from tests.unit.cli.policies import ALLOW_WEB, DENY_DB, Object, known, pod, policy, service, slice_of


def ask(source: str, destination: str, *more: Object, slices: Sequence[Object] = ()) -> Judgement:
    return judge(known(*more), wanted(source, "default"), wanted(destination, "default"), slices)


def test_an_allowed_flow_names_the_rule() -> None:
    found = ask("client", "web-1:8080", ALLOW_WEB)
    assert found.allowed
    assert show.verdict(found) == (
        "default/client → default/web-1, TCP 8080: allowed\n"
        "  egress  of default/client: allowed: no policy selects it for egress\n"
        "  ingress of default/web-1: allowed: default/web ingress rule 1"
    )


def test_a_denied_flow_says_what_would_be_allowed() -> None:
    port, peer = ask("client", "web-1:80", ALLOW_WEB), ask("shop/db", "web-1:8080", ALLOW_WEB)
    assert not port.allowed
    assert "denied: default deny by default/web\n    default/web ingress rule 1 allows TCP 8080 from it" in show.verdict(port)
    assert "    default/web ingress rule 1 allows this port from pods with app=client only" in show.verdict(peer)
    none = ask("client", "shop/db:80", DENY_DB)
    assert "    none of these policies has an ingress rule for default/client, or for this port" in show.verdict(none)


def test_of_many_rules_that_nearly_allow_it_some_are_shown() -> None:
    rules = policy("shop/many", podSelector={}, ingress=[{"ports": [{"port": number}]} for number in range(1, 9)])
    assert "    … and 3 more rules like these" in show.verdict(ask("client", "shop/db:80", rules))


def test_without_a_port_all_that_is_allowed_is_shown() -> None:
    found = ask("client", "web-1", ALLOW_WEB)
    assert show.verdict(found).splitlines() == [
        "default/client → default/web-1: TCP 8080 is allowed, all else denied",
        "  egress  of default/client: everything: no policy selects it for egress",
        "  ingress of default/web-1: TCP 8080: policies default/web",
    ]
    assert found.allowed
    assert not ask("shop/db", "web-1", ALLOW_WEB).allowed
    assert "shop/db: nothing is allowed" not in show.verdict(ask("client", "shop/db"))
    assert show.verdict(ask("client", "shop/db", DENY_DB)).startswith("default/client → shop/db: nothing is allowed")
    assert show.verdict(ask("node1", "192.0.2.1")).splitlines() == [
        "node node1 → 192.0.2.1: everything is allowed",
        "  no policy is about nodes and addresses outside",
    ]


def test_families_that_fare_differently_are_told_apart() -> None:
    only4 = policy("default/web", podSelector={}, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])
    text = show.verdict(ask("client", "web-1:80", only4))
    assert "IPv4: default/client → default/web-1, TCP 80: allowed" in text
    assert "IPv6: default/client → default/web-1, TCP 80: denied" in text


def test_behind_a_service_each_endpoint_is_judged() -> None:
    only_one = policy(
        "default/one", podSelector={}, ingress=[{"from": [{"ipBlock": {"cidr": "10.244.1.2/32"}}], "ports": [{"port": "http"}]}]
    )
    other = pod("default/web-3", {}, "10.244.2.4", "node2")
    found = ask("client", "web", only_one, service("default/web"), other, slices=[slice_of("10.244.2.2", "10.244.2.4")])
    assert not found.allowed
    assert show.verdict(found).startswith("client → Service default/web: denied at 1 of 2 endpoints\n\n")
    assert found.document()["service"] == "default/web"
    assert [one["allowed"] for one in found.document()["flows"]] == [True, False]


@pytest.mark.parametrize(
    ("ips", "said"),
    [(["10.244.2.2"], "allowed (1 endpoint)"), (["10.244.2.4", "10.244.2.5"], "denied (2 endpoints)")],
)
def test_of_a_service_it_is_said_first_whether_it_is_allowed(ips: list[str], said: str) -> None:
    deny = policy("default/deny", podSelector={"matchLabels": {"deny": "all"}})
    others = [pod(f"default/other-{n}", {"deny": "all"}, f"10.244.2.{n}", "node2") for n in (4, 5)]
    found = ask("client", "web", deny, service("default/web"), *others, slices=[slice_of(*ips)])
    assert show.verdict(found).startswith(f"client → Service default/web: {said}\n\n")
    assert found.allowed is said.startswith("allowed")


def test_endpoints_that_fare_alike_are_one_paragraph() -> None:
    web = policy("default/web", podSelector={"matchLabels": {"app": "web"}}, ingress=[{"ports": [{"port": 9090}]}])
    others = [pod(f"default/web-{n}", {"app": "web"}, f"10.244.2.{n}", "node2") for n in range(20, 32)]
    free = pod("default/free", {}, "10.244.2.40", "node2")
    ips = [*(f"10.244.2.{n}" for n in range(20, 32)), "10.244.2.40"]
    found = ask("client", "svc/web", web, service("default/web"), *others, free, slices=[slice_of(*ips)])
    assert show.verdict(found).splitlines() == [
        "client → Service default/web: denied at 12 of 13 endpoints",
        "",
        "default/client → default/web-* (12 pods), TCP 8080: denied",
        "  egress  of default/client: allowed: no policy selects it for egress",
        "  ingress of default/web-* (12 pods): denied: default deny by default/web",
        "    default/web ingress rule 1 allows TCP 9090 from it",
        "",
        "default/client → default/free, TCP 8080: allowed",
        "  egress  of default/client: allowed: no policy selects it for egress",
        "  ingress of default/free: allowed: no policy selects it for ingress",
    ]
    assert len(found.document()["flows"]) == 13, "programs get each"


def test_a_namespace_that_is_not_there_is_told_from_an_empty_one() -> None:
    check_namespace(known().index, "default")
    with pytest.raises(LabError, match="there is no namespace nowhere"):
        check_namespace(known().index, "nowhere")


def test_the_clusters_dns_is_one_endpoint_of_both_families() -> None:
    text = show.verdict(ask("shop/db", "kube-system/kube-dns:53/udp", DENY_DB))
    assert text.splitlines()[:3] == [
        "shop/db → Service kube-system/kube-dns: denied (1 endpoint)",
        "",
        "shop/db → the cluster's DNS, UDP 53: denied",
    ]


def test_ends_of_different_families_never_meet() -> None:
    with pytest.raises(LabError, match="agent and 2001:db8::1 have no addresses of the same family"):
        ask("agent", "2001:db8::1")


def test_verdicts_for_programs() -> None:
    (flow, _) = ask("client", "web-1:80", ALLOW_WEB).document()["flows"]
    assert flow == {
        "source": {"address": "10.244.1.2", "pod": "default/client", "node": ""},
        "destination": {"address": "10.244.2.2", "pod": "default/web-1", "node": ""},
        "allowed": False,
        "by": "default deny by default/web",
        "protocol": "TCP",
        "port": 80,
        "egress": {
            "pod": "default/client",
            "allowed": True,
            "by": "no policy selects it for egress",
            "policies": [],
            "hints": [],
        },
        "ingress": {
            "pod": "default/web-1",
            "allowed": False,
            "by": "default deny by default/web",
            "policies": ["default/web"],
            "hints": ["default/web ingress rule 1 allows TCP 8080 from it"],
        },
    }
    (whole, _) = ask("client", "web-1", ALLOW_WEB).document()["flows"]
    assert (whole["everything"], whole["ports"]) == (False, [{"protocol": "TCP", "port": 8080, "endPort": 8080}])


def test_policies_of_a_namespace() -> None:
    cluster = known(ALLOW_WEB, DENY_DB, policy("shop/all", podSelector={}, ingress=[{}]))
    assert listed.overview(listed.of_namespace(cluster, "")).splitlines() == [
        "NAMESPACE   NAME   SELECTOR   PODS   INGRESS      EGRESS",
        "default     web    app=web    2      1 rule       -",
        "shop        all    all pods   1      everything   -",
        "shop        deny   all pods   1      nothing      nothing",
    ]
    (web,) = listed.of_namespace(cluster, "default")
    assert web.document() == {
        "namespace": "default",
        "name": "web",
        "selector": "app=web",
        "pods": 2,
        "egress": None,
        "ingress": ["TCP 8080 from pods with app=client"],
    }


def test_policies_of_a_pod() -> None:
    cluster = known(ALLOW_WEB, DENY_DB)
    assert listed.of_pod(cluster, "default/web-1").text().splitlines() == [
        "Pod default/web-1: 1 policy (default/web)",
        "",
        "egress: everything is allowed, as none of them says anything about it",
        "",
        "ingress: what is allowed",
        "  TCP 8080 from pods with app=client   (default/web ingress rule 1)",
    ]
    assert "  nothing, but to the pod itself and from its own node" in listed.of_pod(cluster, "shop/db").text()
    assert listed.of_pod(cluster, "default/client").text().startswith("No policy selects pod default/client: ")
    assert listed.of_pod(cluster, "shop/db").document()["isolated"] == {"egress": True, "ingress": True}


def test_what_of_a_policy_is_not_known_is_said() -> None:
    later = policy("shop/later", podSelector={}, ingress=[{"ports": [{"protocol": "QUIC"}]}])
    lines = listed.of_pod(known(later), "shop/db").text().splitlines()
    assert "  nothing from anybody   (shop/later ingress rule 1)" in lines
    assert lines[-1] == "NetworkPolicy shop/later: ingress rule 1: the protocol 'QUIC' is not known: it allows nothing"
    assert not ask("client", "shop/db:80", later).allowed


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a/b", "there is no pod a/b$"),
        ("default/web", "there is no pod default/web: there is default/web-1, default/web-2$"),
        ("default/agent", "is in its node's network"),
        ("default/job", "has ended"),
    ],
)
def test_of_what_can_have_no_policies_it_says_so(path: str, said: str) -> None:
    job = pod("default/job")
    job["status"]["phase"] = "Failed"
    with pytest.raises(LabError, match=said):
        listed.of_pod(known(job), path)


def test_a_matrix_of_pods_that_fare_alike() -> None:
    (table,) = reached.tables(known(ALLOW_WEB, DENY_DB), "", None)
    assert table.text(with_version=False).splitlines() == [
        "                         1 2 3",
        "1 default/client         ✓ o ·",
        "2 default/web-* (2 pods) ✓ · ·",
        "3 shop/db                · · ✓",
        "",
        "✓ everything is allowed   o some ports are   · nothing is",
    ]
    assert table.document() == {
        "versions": [4, 6],
        "groups": [["default/client"], ["default/web-1", "default/web-2"], ["shop/db"]],
        "reach": [
            ["everything", "some", "nothing"],
            ["everything", "nothing", "nothing"],
            ["nothing", "nothing", "everything"],
        ],
    }


def test_a_matrix_of_one_port_and_one_namespace() -> None:
    (table,) = reached.tables(known(ALLOW_WEB), "default", ("TCP", 8080))
    assert table.cells == (("✓", "✓"), ("✓", "·"))
    assert table.text(with_version=False).endswith("✓ TCP 8080 is allowed   · it is denied")
    assert table.document()["port"] == 8080
    assert reached.tables(known(), "nowhere", None) == []


def test_families_that_fare_differently_have_tables_of_their_own() -> None:
    only4 = policy("default/web", podSelector={}, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])
    four, six = reached.tables(known(only4), "default", None)
    assert (four.versions, six.versions) == ((4,), (6,))
    assert four.text(with_version=True).startswith("IPv4:\n")
    assert [set(row) for row in four.cells] == [{"✓"}]


def test_a_beginning_that_others_have_too_names_no_group() -> None:
    groups = [["a/web-1", "a/web-2"], ["a/web-3"], ["a/db-1", "a/db-2"], ["a/x", "a/y", "a/z"]]
    assert group_names(groups) == ["a/web-1 and 1 more", "a/web-3", "a/db-* (2 pods)", "a/x and 2 more"]


def test_policies_of_the_cluster_stand_first_and_say_what_they_do() -> None:
    rule = {
        "action": "Deny",
        "name": "no db",
        "from": [{"namespaces": {}}],
        "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
    }
    spec = {"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}, "ingress": [rule, {**rule, "action": "Pass"}]}
    guard = {"kind": "ClusterNetworkPolicy", "metadata": {"name": "guard"}, "spec": spec}
    cluster = known(guard, policy("shop/none", podSelector={}))
    lines = listed.overview(listed.of_namespace(cluster, "shop")).splitlines()
    assert lines[0].split() == ["TIER", "PRIORITY", "NAME", "SUBJECT", "PODS", "INGRESS", "EGRESS"]
    assert lines[1].startswith("Admin   7          guard   all pods of all namespaces") and "shop" in lines[-1]
    lines = listed.of_pod(cluster, "shop/db").text().splitlines()
    assert lines[0] == "Pod shop/db: 2 policies (ClusterNetworkPolicy guard, shop/none)"
    assert "  Deny TCP 80 from all pods of all namespaces (no db)   (ClusterNetworkPolicy guard ingress rule 1)" in lines
    assert "ingress: what is allowed, of all else" in lines
    (document, _) = listed.of_pod(cluster, "shop/db").document()["policies"]
    assert (document["name"], document["tier"], document["priority"]) == ("guard", "Admin", 7)
