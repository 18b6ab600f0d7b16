"""`podplane cluster uninstall` against an API of dictionaries: agents go first, nodes are cleaned, then the API is."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from podplane.cli.cluster import cleaning
from podplane.cli.cluster import uninstall as module
from podplane.cli.cluster.uninstall import uninstall
from podplane.cli.errors import ClusterError
from podplane.kubeapi.errors import NotFound
from podplane.machine import removal
from podplane.machine import uninstall as on_node
from podplane.model.config import MACHINE
from tests.unit.cli.test_cluster_helm import secret
from tests.unit.machine.test_removal import AGENTS, pod

SAME = f"{on_node.SAME} (3 x link)"
SLICES = "endpointslices.discovery.k8s.io"
SETS = ("daemonsets.apps", "kube-system")


def node(name: str, ready: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name, "annotations": {MACHINE: "{}"}}, "spec": {}, "status": {"conditions": conditions}}


def merged(there: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    changed = dict(there) if isinstance(there, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            changed.pop(name, None)
        else:
            changed[name] = merged(changed.get(name), value)
    return changed


class FakeApi:
    """Objects by (resource, namespace, name); a DaemonSet has a pod on each node, and those that clean say this of it."""

    def __init__(self, nodes: list[dict[str, Any]], said: Mapping[str, str]) -> None:
        self.nodes, self.said, self.others = nodes, said, list[dict[str, Any]]()
        self.there: dict[tuple[str, str, str], Any] = {(*SETS, removal.AGENT): copy.deepcopy(AGENTS)}
        for resource, namespace, name in (*removal.objects(), *removal.CONTROLLERS):
            if resource != "daemonsets.apps":
                self.there[resource, namespace, name] = {"metadata": {"name": name, "namespace": namespace}}
        self.specs = dict[str, dict[str, Any]]()
        """Of pods that clean, as the DaemonSet had it when they were made."""
        self.secrets = list[dict[str, Any]]()
        """Of helm."""
        self.slices = list[dict[str, Any]]()
        """Of the Service of names."""
        self.deleted: list[str] = []
        self.asked = Counter[str]()
        self.patched: list[Any] = []

    def get(self, resource: str, namespace: str, name: str) -> Any:
        if (resource, namespace, name) not in self.there:
            raise NotFound(404, "NotFound", name)
        return self.there[resource, namespace, name]

    def create(self, resource: str, namespace: str, body: dict[str, Any]) -> None:
        assert (resource, namespace, body["metadata"]["name"]) not in self.there
        assert removal.is_waiting(body), "agents are still there"
        made = {**copy.deepcopy(body), "status": {"desiredNumberScheduled": 0, "observedGeneration": 1}}
        made["metadata"]["generation"] = 1
        self.there[resource, namespace, body["metadata"]["name"]] = made

    def delete(self, resource: str, namespace: str, name: str, *, policy: str = "") -> None:
        if resource == "pods":
            del self.specs[name]
        else:
            self.get(resource, namespace, name)
            del self.there[resource, namespace, name]
        self.deleted.append(name)

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[FakeApi]:
        yield self

    def raw(self, resource: str, namespace: str = "", **query: str) -> bytes:
        """A page of two objects."""
        start = int(query.pop("continue") or 0)
        assert query.pop("limit")
        self.asked[resource if not start else f"more {resource}"] += 1
        items = self.objects(resource, namespace, **query)
        more = {"continue": str(start + 2)} if start + 2 < len(items) else {}
        return msgspec.json.encode({"items": items[start : start + 2], "metadata": more})

    def objects(self, resource: str, namespace: str = "", labelSelector: str = "") -> list[dict[str, Any]]:
        if resource == "nodes":
            return self.nodes
        if resource == "secrets":
            return self.secrets
        if resource == SLICES and labelSelector == "kubernetes.io/service-name=kube-dns":
            return self.slices
        if resource != "pods":
            return []
        if not labelSelector:
            return self.others
        cleans = self.there.get((*SETS, removal.UNINSTALL))
        if labelSelector != cleaning.SELECTED or cleans is None or removal.is_waiting(cleans):
            return []
        cleans["status"] = {"desiredNumberScheduled": len(self.nodes), "observedGeneration": cleans["metadata"]["generation"]}
        return [self._cleaner(one["metadata"]["name"], cleans) for one in self.nodes]

    def _cleaner(self, name: str, cleans: dict[str, Any]) -> dict[str, Any]:
        spec = self.specs.setdefault(f"u-{name}", copy.deepcopy(cleans["spec"]["template"]["spec"]))
        if removal.DETACH in spec["initContainers"][0]["args"]:
            self.said = {**self.said, name: SAME}
        if name not in self.said:
            status: dict[str, Any] = {}
        else:
            is_done = self.said[name].startswith("the network") or "by others" in self.said[name]
            state = {"terminated": {"exitCode": 0}} if is_done else {"waiting": {"reason": "CrashLoopBackOff"}}
            status = {"initContainerStatuses": [{"name": one, "state": state} for one in ("agent", "plugin")]}
        return {"metadata": {"name": f"u-{name}"}, "spec": {**spec, "nodeName": name}, "status": status}

    def logs(self, namespace: str, pod: str, container: str) -> str:
        self.asked["logs"] += 1
        text = self.said.get(pod.removeprefix("u-"), "")
        return f"removed from the kernel: 1 x Link\n{text}\n" if container == "agent" and text else ""

    def patch(self, resource: str, namespace: str, name: str, body: Any) -> None:
        if (resource, namespace) == SETS:
            assert (*SETS, removal.AGENT) not in self.there, "agents are still there"
            self.there[resource, namespace, name] = merged(self.there[resource, namespace, name], body)
            self.there[resource, namespace, name]["metadata"]["generation"] += 1
            return
        self.patched.append((name, body))


def run(api: FakeApi, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.setattr(module, "connect_only", lambda where: api)
    monkeypatch.setattr(cleaning, "POLL_SECONDS", 0.0)
    return CliRunner().invoke(uninstall, ["--kubeconfig", "x", "--wait", "0.2", *words])


def test_all_goes_and_each_node_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1"), node("w2")], {"w1": SAME, "w2": SAME})
    done = run(api, monkeypatch, "--prove")
    assert done.exit_code == 0, done.output
    assert f"w1:\n  removed from the kernel: 1 x Link\n  {SAME}\n" in done.output
    assert "2 of 2 nodes as before" in done.output and not api.there
    assert api.deleted.index("podplane-controllers") < api.deleted.index(removal.AGENT) < api.deleted.index(removal.UNINSTALL)
    assert sorted(name for name, _ in api.patched) == ["w1", "w2"]


def test_what_cleans_some_nodes_gives_way_to_what_cleans_all(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1"), node("w2")], {"w1": SAME, "w2": SAME})
    api.there[(*SETS, removal.UNINSTALL)] = {"metadata": {"generation": 1}, "spec": {"for": "w1 alone"}, "status": {}}
    done = run(api, monkeypatch)
    assert done.exit_code == 0 and "2 of 2 nodes" in done.output and not api.there
    assert api.deleted.count(removal.UNINSTALL) == 2


def test_what_stays_in_the_api_is_named_with_how_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1")], {"w1": SAME})
    stays = {
        ("customresourcedefinitions.apiextensions.k8s.io", "", "loadbalancerpools.podplane.dev"): {},
        ("services", "kube-system", "kube-dns"): {"spec": {"clusterIP": "10.96.0.10"}},
    }
    api.there |= stays
    done = run(api, monkeypatch, "--prove")
    assert done.exit_code == 0 and api.there == stays
    (line,) = [one for one in done.output.splitlines() if one.startswith("stays in the API: ")]
    assert "0 pools (kubectl delete customresourcedefinition loadbalancerpools.podplane.dev)" in line
    assert line.endswith("(kubectl -n kube-system delete service kube-dns)")
    api.there = {("services", "kube-system", "kube-dns"): {"spec": {"selector": {"k8s-app": "kube-dns"}}}}
    assert "stays" not in run(api, monkeypatch).output, "a CoreDNS is somebody else's"


def test_endpoints_of_names_are_podplanes_that_stay_or_a_name_server_of_somebody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slice_of(manager: str) -> dict[str, Any]:
        labels = {"endpointslice.kubernetes.io/managed-by": manager}
        return {"metadata": {"name": manager, "labels": labels}, "endpoints": [{"addresses": ["192.0.2.1"]}]}

    api = FakeApi([], {})
    api.there = {("services", "kube-system", "kube-dns"): {"spec": {"clusterIP": "10.96.0.10"}}}
    api.slices = [slice_of("podplane"), slice_of("podplane"), slice_of("podplane")]
    text = run(api, monkeypatch).output
    assert "3 EndpointSlices of the Service kube-dns" in text and "the Service kube-dns, which leads to no pods" in text
    assert "delete endpointslices -l endpointslice.kubernetes.io/managed-by=podplane)" in text
    api.slices = [slice_of("us")]
    assert "stays" not in run(api, monkeypatch).output


def test_a_release_that_the_agents_do_not_name_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1")], {"w1": SAME})
    api.secrets = [{**secret("v1", "podplane"), "metadata": {"name": "v1", "labels": {"owner": "helm", "name": "net"}}}]
    api.there["secrets", "kube-system", "v1"] = api.secrets[0]
    done = run(api, monkeypatch)
    assert done.exit_code == 0 and not api.there and "release net of helm" in done.output


def test_twice_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1")], {"w1": SAME})
    assert run(api, monkeypatch).exit_code == 0
    api.nodes[0]["metadata"]["annotations"] = {}
    done = run(api, monkeypatch, "--prove")
    assert done.exit_code == 0
    assert "no agents: there is no DaemonSet kube-system/podplane-agent" in done.output
    assert "removed from the API: nothing, there was nothing" in done.output


def test_pods_on_the_network_keep_all_as_it_is_unless_they_may_be_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1")], {"w1": SAME})
    api.others = [pod("web")]
    before = dict(api.there)
    done = run(api, monkeypatch)
    assert isinstance(done.exception, ClusterError) and "1 pod would lose the network: default/web" in str(done.exception)
    assert api.there == before
    assert run(api, monkeypatch, "--detach").exit_code == 0 and not api.there


@pytest.mark.parametrize(
    ("ready", "said", "line"),
    [
        ("Unknown", {}, "w2: not clean: it is away: its kubelet says nothing"),
        ("True", {"w2": "1 interface of pods would lose the network: drain"}, "w2: not clean: 1 interface of pods would lose"),
    ],
)
def test_a_node_that_is_not_clean_is_named_and_what_cleans_it_stays(
    ready: str, said: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = FakeApi([node("w1"), node("w2", ready)], {"w1": SAME, **said})
    done = run(api, monkeypatch)
    assert done.exit_code == 1 and f"w1: {SAME}" in done.output and line in done.output
    assert (*SETS, removal.UNINSTALL) in api.there and api.patched == []
    api.said = {"w1": SAME, "w2": SAME}
    api.nodes[1] = node("w2")
    again = run(api, monkeypatch)
    assert again.exit_code == 0 and "2 of 2 nodes" in again.output and not api.there


@pytest.mark.parametrize("line", [on_node.OTHERWISE, on_node.UNKNOWN])
def test_what_is_not_as_before_is_no_proof(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if line == on_node.UNKNOWN:
        monkeypatch.setattr(FakeApi, "logs", lambda self, *_: "")
        line = SAME
    for words, code in ((("--prove",), 1), ((), 0)):
        api = FakeApi([node("w1")], {"w1": line})
        done = run(api, monkeypatch, *words)
        assert done.exit_code == code and "0 of 1 node as before" in done.output
        assert not api.there, "all is gone from the API all the same"


class Slow(FakeApi):
    """One node more is clean at each look."""

    def get(self, resource: str, namespace: str, name: str) -> Any:
        if name == removal.UNINSTALL and (resource, namespace, name) in self.there and len(self.said) < len(self.nodes):
            self.said = {**self.said, self.nodes[len(self.said)]["metadata"]["name"]: SAME}
        return super().get(resource, namespace, name)


def test_what_a_node_says_is_read_once_and_nodes_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Slow([node(f"w{number}") for number in range(1, 8)], {})
    monkeypatch.setattr(module, "connect_only", lambda where: api)
    monkeypatch.setattr(cleaning, "POLL_SECONDS", 0.0)
    done = CliRunner().invoke(uninstall, ["--kubeconfig", "x", "--wait", "60"])
    assert done.exit_code == 0 and "7 of 7 nodes as before" in done.output and not api.there, done.output
    assert api.asked["logs"] == 2 * 7, "of each node two containers"
    looks = 1 + 7
    assert api.asked["nodes"] <= looks, "while there are nodes that are not clean; and once for their marks"
    assert sorted(name for name, _ in api.patched) == [f"w{number}" for number in range(1, 8)]


def test_agents_of_nodes_that_are_away_are_not_waited_for_and_nodes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node(f"w{number}", "Unknown") for number in range(1, 6)], {})
    agents = [{"metadata": {"name": f"a{number}"}, "spec": {"nodeName": f"w{number}"}} for number in range(1, 6)]
    pods = api.objects
    monkeypatch.setattr(
        api,
        "objects",
        lambda resource, *a, **k: agents if k.get("labelSelector") == cleaning.AGENTS else pods(resource, *a, **k),
    )
    cleaner = cleaning.Cleaning(api)
    cleaner.begin(AGENTS, detach=False)
    cleaner.clean(0)
    assert not removal.is_waiting(api.there[(*SETS, removal.UNINSTALL)]) and api.asked["nodes"] == 1


def test_pods_that_hold_a_node_up_are_named_and_cut_off_if_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1"), node("w2")], {"w1": SAME, "w2": "1 interface of pods would lose the network: drain"})
    assert run(api, monkeypatch).exit_code == 1
    api.others = [pod("late", nodeName="w2", ip="")]
    done = run(api, monkeypatch)
    assert "its pods: default/late\n" in done.output and module.STUCK in done.output
    assert done.exit_code == 1 and (*SETS, removal.UNINSTALL) in api.there
    done = run(api, monkeypatch, "--detach", "--prove")
    assert done.exit_code == 0 and "2 of 2 nodes as before" in done.output and not api.there
    assert "u-w2" in api.deleted and "u-w1" not in api.deleted, "what w1 has proved stays"


def test_why_nodes_wait_is_told_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own, on which nothing takes time but waiting."""
    api, now = FakeApi([node("w1"), node("w2")], {"w1": SAME}), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] == 25:
            api.said = {**api.said, "w2": "1 interface of pods would lose the network: drain"}

    cleaner = cleaning.Cleaning(api, lambda: now[0], sleep)
    cleaner.begin(AGENTS, detach=False)
    cleaner.clean(0)
    said = list[tuple[float, str, str]]()
    cleaner.wait(60, lambda _: None, lambda one: said.append((now[0], one.name, one.lines[0])))
    drain = "1 interface of pods would lose the network: drain"
    assert said == [(10.0, "w2", "it has not begun"), (30.0, "w2", drain)]


class Killed(BaseException):
    """What a signal does to the command."""


@pytest.mark.parametrize("place", range(1, 16))
def test_what_is_interrupted_anywhere_goes_on_and_cleans_each_node(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    api, count = FakeApi([node("w1"), node("w2")], {"w1": SAME, "w2": SAME}), Counter[str]()
    api.there[(*SETS, removal.AGENT)]["metadata"]["annotations"] = {removal.RELEASE: "network"}

    def or_killed(do: Any) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            count["calls"] += 1
            if count["calls"] == place:
                raise Killed
            return do(*words, **named)

        return call

    with monkeypatch.context() as patched:
        for name in ("get", "create", "delete", "patch"):
            patched.setattr(api, name, or_killed(getattr(api, name)))
        with pytest.raises(Killed):
            run(api, monkeypatch)
    sets = [api.there.get((*SETS, name)) for name in (removal.AGENT, removal.UNINSTALL)]
    kept = next(one for one in sets if one)
    assert kept["metadata"]["annotations"][removal.RELEASE] == "network", "it is still known what made it"
    done = run(api, monkeypatch, "--prove")
    assert done.exit_code == 0 and "2 of 2 nodes as before" in done.output and not api.there


def test_no_time_is_no_proof_and_what_cleans_nodes_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1")], {"w1": SAME})
    nodes, api.nodes = api.nodes, []
    monkeypatch.setattr(api, "objects", lambda *_, **__: [])
    done = run(api, monkeypatch, "--wait", "0")
    assert isinstance(done.exception, ClusterError) and cleaning.NOT_SEEN in str(done.exception)
    assert (*SETS, removal.UNINSTALL) in api.there
    monkeypatch.undo()
    api.nodes = nodes
    done = run(api, monkeypatch, "--prove")
    assert done.exit_code == 0 and "1 of 1 node as before" in done.output and not api.there


def test_where_no_node_was_looked_at_nothing_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, code in ((("--prove",), 1), ((), 0)):
        api = FakeApi([node("w1")], {})
        del api.there[(*SETS, removal.AGENT)]
        done = run(api, monkeypatch, *words)
        assert done.exit_code == code and module.UNSEEN in done.output


def test_a_stray_pod_on_what_is_no_node_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi([node("w1")], {"w1": SAME})
    pods, stray = api.objects, {"metadata": {"name": "stray"}, "spec": {"nodeName": "nowhere"}}
    monkeypatch.setattr(
        api,
        "objects",
        lambda resource, *a, **k: [stray] if k.get("labelSelector") == cleaning.AGENTS else pods(resource, *a, **k),
    )
    assert run(api, monkeypatch).exit_code == 0 and not api.there
