"""A check of a cluster: what it makes there, what it may delete, what it asks for, and what it says."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from podplane.cli.check import egress, policies, promises, report, services
from podplane.cli.check.cluster import command, on_cluster, place, pods, rights, settling
from podplane.cli.check.cluster import policies as own_policies
from podplane.cli.check.cluster.interruption import ending_in_order, held_off
from podplane.cli.check.command import check
from podplane.cli.check.patience import take
from podplane.cli.check.policed import Around, every_way
from podplane.cli.check.promises import Party, Probe, Verdict
from podplane.cli.check.services import Own, Vip
from podplane.cli.errors import ClusterError
from podplane.dns import resolv_conf
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.model.config import CHECK_NAMESPACE
from tests.unit.cli.stored import Stored

NODES = ("w1", "w2")
Object = dict[str, Any]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (place, pods, settling, own_policies):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.0)


# Pods.


def is_restricted(pod: Object) -> bool:
    """By the Pod Security Standard `restricted`, as far as these pods have its fields."""
    spec = pod["spec"]
    own, containers = spec["securityContext"], [one["securityContext"] for one in spec["containers"]]
    return (
        not spec.get("hostNetwork")
        and "volumes" not in spec
        and own["runAsNonRoot"]
        and own["runAsUser"] != 0
        and own["seccompProfile"]["type"] == "RuntimeDefault"
        and {one["name"] for one in own.get("sysctls", ())} <= {"net.ipv4.ping_group_range"}
        and all(one["allowPrivilegeEscalation"] is False and one["capabilities"] == {"drop": ["ALL"]} for one in containers)
        and not any("hostPort" in port for one in spec["containers"] for port in one.get("ports", ()))
    )


def test_pods_are_restricted_and_those_that_speak_for_nodes_have_one_capability() -> None:
    found = pods.manifests(NODES, "an/image", two_on_each=False)
    names = {one["metadata"]["name"] for one in found}
    assert names == {"on-w1", "on-w2", "also-on-w1", "also-on-w2", "two-containers", "in-w1", "in-w2"}
    for one in found:
        assert is_restricted(one) != bool(one["spec"].get("hostNetwork"))
        assert one["spec"]["tolerations"] == [{"operator": "Exists"}] and one["spec"]["activeDeadlineSeconds"] > 0
        assert not one["spec"]["automountServiceAccountToken"]
        assert {container["image"] for container in one["spec"]["containers"]} == {"an/image"}
    on_hosts = [one for one in found if one["spec"].get("hostNetwork")]
    assert {one["spec"]["nodeName"] for one in on_hosts} == set(NODES)
    capabilities = {"drop": ["ALL"], "add": ["NET_RAW"]}
    assert all(c["securityContext"]["capabilities"] == capabilities for one in on_hosts for c in one["spec"]["containers"])
    labels = [one["metadata"]["labels"][pods.PARTY] for one in found if "labels" in one["metadata"]]
    assert len(labels) == len(set(labels)) == 5


def test_of_many_nodes_each_has_one_pod_and_some_have_two() -> None:
    nodes = [f"n{i}" for i in range(pods.TWO_UP_TO + 1)]

    def count(**how: bool) -> int:
        return len(pods.manifests(nodes, "i", **how))

    assert count(two_on_each=False) == 2 * len(nodes) + pods.TWO_ON + 1
    assert count(two_on_each=True) == 3 * len(nodes) + 1


def test_why_a_pod_does_not_run_is_told_by_who_knows_best() -> None:
    def pod(name: str, **status: Any) -> Object:
        return {**pods.manifests(["w1"], "i", two_on_each=False)[0], "metadata": {"name": name}, "status": status}

    api = Stored()
    with place.made(api, "") as here:
        for one in (
            pod("refused", phase="Failed", reason="OutOfpods", message="Node didn't have enough resource: pods"),
            pod("ended", phase="Failed", containerStatuses=[{"name": "first", "state": {"terminated": {"exitCode": 127}}}]),
            pod(
                "pulls",
                phase="Pending",
                containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}],
            ),
        ):
            here.create("pods", one)
        running, lost = pods.started(here)
    assert not running
    assert lost["refused"] == "the check's pod refused does not run on w1: Node didn't have enough resource: pods"
    assert "is it of this version of podplane" in lost["ended"] and lost["ended"].endswith("ended with exit code 127)")
    assert lost["pulls"] == "the check's pod pulls does not run on w1: Back-off"


def test_an_event_says_what_a_node_could_not_do() -> None:
    waiting = [{"name": "first", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    pod = {"metadata": {"name": "on-w1", "uid": "u"}, "status": {"phase": "Pending", "containerStatuses": waiting}}
    assert pods._reason(pod, {"u": "failed to setup network for sandbox"}) == "failed to setup network for sandbox"
    assert pods._reason(pod, {}) == "it is Pending"


# Rights.


def test_what_is_missing_is_named_and_nothing_is_made() -> None:
    api = Stored()
    api.denied = {("pods/exec", "create"), ("namespaces", "create"), ("namespaces", "delete"), ("endpointslices", "create")}
    with pytest.raises(ClusterError) as caught:
        rights.demand(api, CHECK_NAMESPACE, is_own=True)
    assert str(caught.value) == (
        "this user may not do what a check needs: create, delete namespaces; create pods/exec in namespace podplane-check; "
        "create endpointslices.discovery.k8s.io in namespace podplane-check. Nothing was made"
    )
    assert not api.log


def test_in_a_namespace_that_is_there_none_of_namespaces_is_needed() -> None:
    api = Stored()
    api.denied = {("namespaces", verb) for verb in ("get", "create", "delete")}
    rights.demand(api, "shop", is_own=False)


def test_the_page_lists_the_rights_in_the_namespace() -> None:
    block = (Path(__file__).parents[3] / "docs/check.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    rules = yaml.safe_load(block)["rules"]
    listed = {
        (group, one, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for one in rule["resources"]
        for verb in rule["verbs"]
    }
    assert listed == {(one.group, one.resource, one.verb) for one in rights.needed("x", is_own=False) if one.namespace}


# The namespace.


def others(api: Stored) -> dict[tuple[str, str, str], Object]:
    return {key: one for key, one in api.found.items() if CHECK_NAMESPACE not in key}


def test_the_namespace_goes_with_all_that_is_in_it_whatever_happens() -> None:
    for trouble in (None, ClusterError("x"), KeyboardInterrupt()):
        api = Stored("shop")
        before = others(api)
        try:
            with place.made(api, "") as here:
                here.create("pods", {"metadata": {"name": "on-w1"}})
                here.create(place.POLICIES, {"metadata": {"name": "deny"}})
                assert {key[2] for key in api.found} == {"shop", CHECK_NAMESPACE, "on-w1", "deny"}
                if trouble is not None:
                    raise trouble
        except (ClusterError, KeyboardInterrupt) as error:
            assert error is trouble
        assert api.found == before


def test_what_a_check_left_that_was_killed_goes_before_the_next_one() -> None:
    api = Stored()
    place._created(api)
    left = place.Place(api, CHECK_NAMESPACE).create("pods", {"metadata": {"name": "on-w1"}})
    with place.made(api, "") as here:
        assert here.create("pods", {"metadata": {"name": "on-w1"}})["metadata"]["uid"] != left["metadata"]["uid"]
    assert not api.found


def test_a_namespace_of_that_name_which_is_somebody_else_s_is_left_alone() -> None:
    api = Stored(CHECK_NAMESPACE)
    with pytest.raises(ClusterError, match="is somebody else's, without the label"), place.made(api, ""):
        pass
    assert list(api.found) == [("namespaces", "", CHECK_NAMESPACE)]


def test_in_a_namespace_that_is_there_only_what_the_check_made_goes() -> None:
    api = Stored("shop")
    api.create("pods", "shop", {"metadata": {"name": "theirs"}})
    api.create("pods", "shop", {"metadata": {"name": "old", "labels": {place.LABEL: place.VALUE}}})
    with place.made(api, "shop") as here:
        assert ("pods", "shop", "old") not in api.found, "it was left behind"
        here.create("services", {"metadata": {"name": "spread"}})
    assert {key[2] for key in api.found} == {"shop", "theirs"}


def test_a_check_that_another_one_took_for_left_behind_deletes_nothing_of_it() -> None:
    api = Stored()
    with place.made(api, "") as first:
        first.create("pods", {"metadata": {"name": "on-w1"}})
        with place.made(api, "") as second:
            second.create("pods", {"metadata": {"name": "on-w1"}})
            first.clean_up()
            assert [one["metadata"]["name"] for one in second.objects("pods")] == ["on-w1"]
    assert not api.found


def test_a_pod_waits_for_the_account_of_a_new_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    api, made, refusals = Stored(), Stored.create, [1, 1]

    def create(self: Stored, resource: str, namespace: str, body: Mapping[str, Any]) -> Object:
        if resource == "pods" and refusals:
            refusals.pop()
            raise ApiError(403, "Forbidden", 'error looking up service account x/default: serviceaccount "default" not found')
        return made(self, resource, namespace, body)

    monkeypatch.setattr(Stored, "create", create)
    with place.made(api, "") as here:
        here.create("pods", {"metadata": {"name": "on-w1"}})
    assert not refusals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_order_and_tear_no_request_in_two(number: signal.Signals) -> None:
    done = []
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ending_in_order():
        with held_off():
            signal.raise_signal(number)
            done.append("the request")
        done.append("more")
    assert done == ["the request"] and signal.getsignal(number) == before


# Parties and Services.


PODS = [
    Party("on-w1", "pod", "w1", ("10.244.1.2",), 8079),
    Party("on-w2", "pod", "w2", ("10.244.2.2",), 8079),
    Party("also-on-w1", "pod", "w1", ("10.244.1.3",), 8079),
    Party("also-on-w2", "pod", "w2", ("10.244.2.3",), 8079),
]
AS_NODES = [Party(name, "node", name, (f"192.168.1.1{i}",), 8079) for i, name in enumerate(NODES, 1)]
NODE_OBJECTS = [{"metadata": {"name": name}, "spec": {"podCIDRs": [f"10.244.{i}.0/24"]}} for i, name in enumerate(NODES, 1)]


def test_nodes_that_can_t_take_part_are_named() -> None:
    def node(name: str, ready: str, system: str = "linux") -> Object:
        status = {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"operatingSystem": system}}
        return {"metadata": {"name": name}, "status": status}

    found, left_out = command.able(
        [node("w10", "True"), node("w2", "True"), node("w3", "False"), node("win", "True", "windows")]
    )
    assert [one["metadata"]["name"] for one in found] == ["w2", "w10"]
    assert left_out == ["node w3 (it is not Ready)", "node win (it runs windows)"]


def test_each_node_comes_to_services_of_the_next_one_or_of_all_others() -> None:
    def pairs(deep: bool, parties: list[Party]) -> set[tuple[str, str]]:
        scene = on_cluster.OnCluster(None, (), deep, None)  # type: ignore[arg-type]  # it asks nobody
        return {(one.name, other.name) for one, asked in scene.outsiders({}, parties) for other in asked}

    three = [*AS_NODES, Party("w3", "node", "w3", ("192.168.1.13",))]
    assert pairs(False, three) == {("w1", "w2"), ("w2", "w3"), ("w3", "w1")}
    assert len(pairs(True, three)) == 6
    assert pairs(True, AS_NODES[:1]) == pairs(False, AS_NODES[:1]) == set()


def test_a_node_has_services_when_all_endpoints_answer_and_who_has_none_refuses() -> None:
    own = Own(
        {"spread": [Vip("spread", "10.96.0.7", 80)]} | dict.fromkeys(("sticky", "itself", "nobody"), ()), {}, {}, PODS[:2], {}
    )
    sources, seen = {"w1": AS_NODES[0]}, settling.defaultdict(set)
    probe = Probe(services.SERVICES, "w1", "Service spread", "tcp", "10.96.0.7", 80)
    late = settling._still(own, sources, seen, {probe: {"ok": True, "seen": {"name": "on-w1"}}})
    assert late == {"w1": "Service spread leads w1 never to on-w2"}
    assert not settling._still(own, sources, seen, {probe: {"ok": True, "seen": {"name": "on-w2"}}})
    nobody = Probe(services.REFUSED, "w1", "Service nobody", "tcp", "10.96.0.8", 80)
    late = settling._still(own, sources, seen, {nobody: {"ok": False, "error": "no answer"}})
    assert "expected to be refused, got no answer" in late["w1"]


def test_where_nobody_says_what_is_between_nodes_either_address_may_be_seen_and_no_third() -> None:
    probes = promises.plan(PODS, AS_NODES, None, True, has_tunnel=lambda a, b: None if a != b else False)
    [probe] = [one for one in probes if (one.promise, one.source, one.target) == (promises.POD_TO_NODE, "on-w1", "w2")]

    def judged(source: str) -> str:
        return promises.judge(probe, {"ok": True, "seen": {"name": "w2", "source": source}})

    assert not judged("10.244.1.2") and not judged("192.168.1.11")
    assert judged("192.168.1.1").endswith("w2 saw 192.168.1.1")
    [own] = [one for one in probes if (one.promise, one.source, one.target) == (promises.POD_TO_NODE, "on-w1", "w1")]
    assert promises.judge(own, {"ok": True, "seen": {"name": "w1", "source": "192.168.1.11"}})


def test_the_domain_is_of_the_search_path() -> None:
    conf = resolv_conf.read("search podplane-check.svc.example.test svc.example.test example.test\n")
    assert on_cluster.domain_of(conf, CHECK_NAMESPACE) == "example.test"
    assert on_cluster.domain_of(conf, "shop") == ""


def test_the_way_out_is_tried_to_the_api_server_in_the_families_that_pods_have() -> None:
    slice_ = {"endpoints": [{"addresses": ["192.168.1.2"]}, {"addresses": ["fd00::2"]}], "ports": [{"port": 6443}]}
    service = {"spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"port": 443}]}}
    probes = egress.plan(PODS[:1], egress.addresses(slice_, service))
    assert [(one.target, one.ip, one.port) for one in probes] == [
        ("API server", "192.168.1.2", 6443),
        ("Service kubernetes", "10.96.0.1", 443),
    ]
    found = egress.verdict(probes, {probes[0]: {"ok": True}})
    assert found.proved == 1 and len(found.failures) == 1
    assert egress.addresses(None, None) == []


# Policies.


def tried(name: str, deep: bool = True) -> Mapping[tuple[str, str, int], bool]:
    """What is tried of one policy, and whether it is to pass: source, target and port."""
    labels = {pod.name: f"p{i}" for i, pod in enumerate(PODS)}
    found = [one for wanted in own_policies.rounds(PODS, labels, CHECK_NAMESPACE, deep=deep) for one in wanted]
    [chosen] = [one for one in found if one["metadata"]["name"] == f"check-{name}"]
    api = Stored()
    with place.made(api, "") as here:
        for pod in PODS:
            made = here.create("pods", {"metadata": {"name": pod.name, "labels": {pods.PARTY: labels[pod.name]}}, **body(pod)})
            assert made["metadata"]["namespace"] == CHECK_NAMESPACE
        here.create(place.POLICIES, chosen)
        view = own_policies.view(here, NODE_OBJECTS)
    paths = {pod.name: f"{CHECK_NAMESPACE}/{pod.name}" for pod in PODS}
    judged = own_policies.certain(
        policies.plan(own_policies.ways(Around(PODS, AS_NODES, (), paths), view), paths, view, ping=False), PODS
    )
    return {(probe.source, probe.target, probe.port): said.allowed for probe, said in judged.items()}


def body(pod: Party) -> Object:
    container = {"name": "first", "ports": [{"name": pods.PORT_NAME, "containerPort": 8079, "protocol": "TCP"}]}
    return {
        "spec": {"nodeName": pod.node, "containers": [container]},
        "status": {"phase": "Running", "podIPs": [{"ip": pod.ips[0]}]},
    }


def test_each_policy_denies_something_that_is_tried_or_lets_pass_what_another_would_not() -> None:
    names = list(own_policies.specs("p0", ("10.244.1.2", "fd00::2"), CHECK_NAMESPACE))
    for name in names:
        found = tried(name)
        assert any(found.values()), "from its own node at least"
        assert name in ("named-port", "own-namespace") or not all(found.values()), name
    assert all(tried("named-port").values()) and all(tried("own-namespace").values())


def test_who_is_let_in_and_who_is_not() -> None:
    target = "also-on-w1"
    found = {source: allowed for (source, to, port), allowed in tried("one-client").items() if to == target and port == 8079}
    assert found == {"on-w1": True, "on-w2": False, "also-on-w2": False, "w1": True}
    found = {source: allowed for (source, to, port), allowed in tried("all-but-one").items() if to == "also-on-w2"}
    assert found == {"on-w1": False, "on-w2": True, "also-on-w1": True, "w2": True}


def test_without_deep_two_policies_are_made_and_of_denied_ports_only_those_where_somebody_listens() -> None:
    labels = {pod.name: f"p{i}" for i, pod in enumerate(PODS)}
    [one] = own_policies.rounds(PODS, labels, CHECK_NAMESPACE, deep=False)
    assert [policy["metadata"]["name"] for policy in one] == ["check-deny", "check-one-client"]
    for (_, _, port), allowed in tried("another-port").items():
        assert allowed or port == 8079
    assert any(port == own_policies.OTHER_PORT for _, _, port in tried("another-port"))


def test_who_refuses_what_is_to_be_denied_has_denied_it() -> None:
    [probe] = [Probe(policies.POLICIES, "a", "b", "open", "10.0.0.1", 8079)]
    refused = {"ok": False, "error": policies.REFUSED}
    said = next(iter(plan_of_one_denied().values()))
    assert policies.judge(probe, said, refused)
    assert not policies.judge(probe, said, own_policies.denied(refused))
    assert policies.judge(probe, said, own_policies.denied({"ok": True}))


def plan_of_one_denied() -> policies.Judged:
    from tests.unit.cli.policies import DENY_DB, known
    from tests.unit.cli.test_check_policies import AROUND, PATHS

    judged = policies.plan(every_way(AROUND, known(DENY_DB)), PATHS, known(DENY_DB))
    return {probe: said for probe, said in judged.items() if not said.allowed}


# What is said.


def test_what_could_not_be_tried_breaks_nothing_and_is_told() -> None:
    kept, other = Verdict(promises.REACH, proved=2), Verdict(promises.OUTSIDE, not_tried=on_cluster.NOT_OUTSIDE)
    found = report.Result([kept, other], [], [], {})
    assert found.ok
    text = report.as_text(found, colour=False)
    assert f"· {promises.PROMISES[promises.OUTSIDE]}  (not tried: {on_cluster.NOT_OUTSIDE})" in text
    assert "1 of 2 promises are kept, and 1 could not be tried here: 2 probes" in text
    assert f'"not_tried": "{on_cluster.NOT_OUTSIDE}"' in report.as_json(found)


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("{}")
    for words, why in (
        (["--deep"], "--deep is of a check of a cluster"),
        (["--image", "x"], "--image is of a check of a cluster"),
        (["--name", "x", "--kubeconfig", str(file)], "--name is of a lab and --kubeconfig of a cluster"),
        (["--kubeconfig", str(file)], "has no context ''"),
    ):
        done = CliRunner().invoke(check, words)
        assert isinstance(done.exception, LabError) and why in str(done.exception), words


def test_a_network_without_policies_is_told_in_a_word() -> None:
    api = Stored()
    with place.made(api, "") as here:
        for number, pod in enumerate(PODS):
            here.create("pods", {"metadata": {"name": pod.name, "labels": {pods.PARTY: f"p{number}"}}, **body(pod)})

        def passes(probes: Iterable[Probe], seconds: float) -> dict[Probe, Any]:
            return {one: {"ok": True, "seen": {}} for one in probes}

        take(0.01)
        found = own_policies.prove(here, PODS, AS_NODES, NODE_OBJECTS, passes, deep=False)
        take(1)
        assert not here.objects(place.POLICIES)
    first, *others = found.failures
    assert first == f"nothing is denied of {len(others)} connections that are to be: does this network enforce NetworkPolicies?"
    assert len(others) == 5 and found.proved
