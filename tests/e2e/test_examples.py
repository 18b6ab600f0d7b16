"""The examples: each is applied, does what its first sentence says, is tried as it says, and is deleted with nothing left."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.e2e.conftest import Kubectl, Podplane, until

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
KINDS = (
    *("pods", "services", "endpoints", "configmaps", "secrets", "serviceaccounts"),
    *("deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps", "controllerrevisions.apps"),
    *("jobs.batch", "endpointslices.discovery.k8s.io", "leases.coordination.k8s.io"),
)
"""What an example, or a controller for it, makes."""
Check = Callable[[Kubectl], None]
CHECKS: dict[str, Check] = {}
"""By the name of the example."""


def shows(name: str) -> Callable[[Check], Check]:
    """The check of an example."""

    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


def comment(name: str) -> list[str]:
    """The lines that an example begins with."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    return [line.removeprefix("#").removeprefix(" ") for line in lines[: next(i for i, x in enumerate(lines) if x[0] != "#")]]


def commands(name: str) -> list[list[str]]:
    """The commands that an example is tried with, as words; `ip=$(kubectl …)`, which keeps an answer, begins with `ip=`."""
    lines = (re.sub(r"^  (\w+=)\$\((kubectl .*)\)$", r"  \1 \2", line) for line in comment(name))
    return [shlex.split(line, comments=True) for line in lines if re.match(r"  (\w+= )?kubectl ", line)]


def stored(lab: Podplane) -> set[str]:
    """All objects that an example may leave; nodes' signs of life are theirs."""
    found = ((kind, o["metadata"]) for kind in KINDS for o in lab.api.objects(kind))
    return {f"{kind}/{m['namespace']}/{m['name']}" for kind, m in found if m["namespace"] != "kube-node-lease"}


@pytest.fixture(autouse=True, scope="module")
def client(kubectl: Kubectl) -> Iterator[None]:
    """A pod that asks others."""
    kubectl("run", "client", "--image=podplane/client")
    kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=30s")
    yield
    kubectl("delete", "pod", "client", "--now")


def curl(kubectl: Kubectl, at: str, *words: str) -> str:
    """What is answered to a pod that asks."""
    return kubectl("exec", "client", "--", "curl", "-s", "--max-time", "5", *words, f"http://{at}")


def ready(kubectl: Kubectl, service: str) -> list[str]:
    """Addresses and ports of the ready endpoints of a Service, in order."""
    label = f"kubernetes.io/service-name={service}"
    slices = json.loads(kubectl("get", "endpointslices", "-l", label, "-o", "json"))["items"]
    endpoints = [(e, s["ports"][0]["port"]) for s in slices for e in s.get("endpoints", ())]
    return sorted(f"{e['addresses'][0]}:{port}" for e, port in endpoints if e["conditions"]["ready"])


def pods(kubectl: Kubectl, label: str) -> list[dict[str, Any]]:
    """The pods with a label, by name."""
    found: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "-l", label, "-o", "json"))["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def wait(kubectl: Kubectl, what: str, condition: str, *more: str) -> None:
    """Until it is so."""
    kubectl("wait", f"--for={condition}", what, *more, "--timeout=60s")


def eventually(holds: Callable[[], bool]) -> None:
    """Until it holds; a minute at most."""
    until(holds, 60)


@contextlib.contextmanager
def forwarded(kubectl: Kubectl, what: str, port: int) -> Iterator[str]:
    """Where a port of a pod or Service is on this machine."""
    with kubectl.start("port-forward", what, f":{port}") as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[2]
        finally:
            process.kill()


def ask(at: str, method: str, body: str = "") -> Any:
    """What is answered to a request, from JSON."""
    with urlopen(Request(f"http://{at}", body.encode(), method=method), timeout=10) as answer:
        return json.load(answer)


def test_every_example_has_a_check_a_line_in_the_list_and_commands() -> None:
    assert NAMES
    assert CHECKS.keys() == set(NAMES)
    listed = re.findall(r"^\| \[([a-z-]+)\.yaml\]\(\1\.yaml\) \| .+ \|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == NAMES
    for name in NAMES:
        assert re.match(r"[A-Z].*[a-z,;:]", comment(name)[0]), name
        assert commands(name)[0] == ["kubectl", "apply", "-f", f"examples/{name}.yaml"]
        assert len(commands(name)) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_an_example_does_what_it_says_and_leaves_nothing(name: str, lab: Podplane, kubectl: Kubectl) -> None:
    before = stored(lab)
    path = str(FOLDER / f"{name}.yaml")
    first, *rest = commands(name)
    assert first == ["kubectl", "apply", "-f", f"examples/{name}.yaml"]
    kubectl("apply", "-f", path)
    CHECKS[name](kubectl)
    kept: dict[str, str] = {}
    for program, *words in rest:
        if program.endswith("="):
            kept[f"${program[:-1]}"] = kubectl(*words[1:])
            continue
        for variable, text in kept.items():
            words = [word.replace(variable, text) for word in words]
        kubectl(*words)
    kubectl("delete", "-f", path)
    eventually(lambda: stored(lab) == before)


@shows("config")
def _config(kubectl: Kubectl) -> None:
    def inside(*words: str) -> str:
        return kubectl("exec", "configured", "--", *words)

    wait(kubectl, "pod/configured", "condition=Ready")
    node = kubectl("get", "pod", "configured", "-o", "jsonpath={.spec.nodeName}")
    assert kubectl("logs", "configured") == f"blue, a password of 11 letters, configured on {node} with 64 MiB\n"
    assert inside("cat", "/etc/settings/colour", "/etc/settings/app.conf") == "bluesize = 3\nshape = round\n"
    assert inside("cat", "/etc/settings/password") == "open sesame"
    assert inside("cat", "/etc/settings/pod/labels") == 'app="configured"\ntier="demo"'
    assert inside("stat", "--dereference", "--format=%a", "/etc/settings/password") == "440\n"
    claims = inside("cat", "/etc/settings/token").split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"] == ["vault"]
    kubectl("patch", "configmap", "settings", "-p", '{"data": {"COLOUR": "red"}}')
    kubectl("annotate", "pod", "configured", "example.org/looks-again=now")  # a kubelet does by itself within a minute
    eventually(lambda: inside("cat", "/etc/settings/colour") == "red")
    assert inside("printenv", "COLOUR") == "blue\n", "variables stay as they were at the start"
    kubectl("delete", "configmap", "settings")
    kubectl("annotate", "--overwrite", "pod", "configured", "example.org/looks-again=later")
    eventually(lambda: 'configmap "settings" not found' in kubectl("events", "--for=pod/configured"))
    assert inside("sh", "-c", "echo $COLOUR; cat /etc/settings/colour") == "blue\nred", "what runs goes on with what it has"
    kubectl("apply", "-f", str(FOLDER / "config.yaml"))


@shows("daemonset")
def _daemonset(kubectl: Kubectl) -> None:
    kubectl("rollout", "status", "daemonset/agent", "--timeout=60s")
    found = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in pods(kubectl, "app=agent")}
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    assert found == {node["metadata"]["name"]: node["status"]["addresses"][0]["address"] for node in nodes}
    assert len(pods(kubectl, "app=agent")) == len(nodes) == 3
    for node, address in found.items():
        assert curl(kubectl, f"{address}:9100") == f"agent of {node}"


@shows("job")
def _job(kubectl: Kubectl) -> None:
    wait(kubectl, "job/sum", "condition=Complete")
    done = pods(kubectl, "job-name=sum")
    indices = [pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for pod in done]
    assert (indices, {pod["status"]["phase"] for pod in done}) == (list("012345"), {"Succeeded"})
    sums = [int(kubectl("logs", pod["metadata"]["name"]).split(":")[1]) for pod in done]
    assert (len(set(sums)), sum(sums)) == (6, sum(range(600)))
    assert _most_at_once(kubectl) == 3


def _most_at_once(kubectl: Kubectl) -> int:
    """How many of the Job's pods there are at a time, seen by a watch while it runs once more."""
    line = 'jsonpath={.metadata.uid} {.status.phase}{"\\n"}'
    with kubectl.start("get", "pods", "-l", "job-name=sum", "--watch", "-o", line) as process:
        assert process.stdout is not None
        try:
            before = {process.stdout.readline().split()[0] for _ in range(6)}
            kubectl("replace", "--force", "-f", str(FOLDER / "job.yaml"))
            phases: dict[str, str] = {}
            most = 0
            while list(phases.values()).count("Succeeded") < 6:
                uid, phase = process.stdout.readline().split()
                if uid not in before:
                    phases[uid] = phase
                    most = max(most, sum(p in ("Pending", "Running") for p in phases.values()))
            return most
        finally:
            process.kill()


@shows("probes")
def _probes(kubectl: Kubectl) -> None:
    def restarts() -> str:
        return kubectl("get", "pod", "probed", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")

    wait(kubectl, "pod/probed", "condition=Ready")
    eventually(lambda: len(ready(kubectl, "probed")) == 1)
    assert curl(kubectl, f"{ready(kubectl, 'probed')[0]}/healthy", "-w", "%{http_code}") == "200"
    kubectl("exec", "probed", "--", "rm", "/www/ready")
    wait(kubectl, "pod/probed", "condition=Ready=False")
    eventually(lambda: ready(kubectl, "probed") == [])
    kubectl("exec", "probed", "--", "touch", "/www/ready")
    wait(kubectl, "pod/probed", "condition=Ready")
    eventually(lambda: len(ready(kubectl, "probed")) == 1)
    assert restarts() == "0"
    kubectl("exec", "probed", "--", "rm", "/www/healthy")
    eventually(lambda: restarts() == "1")
    wait(kubectl, "pod/probed", "condition=Ready")
    assert "Container web failed liveness probe, will be restarted" in kubectl("describe", "pod", "probed")


@shows("rolling-update")
def _rolling_update(kubectl: Kubectl) -> None:
    """That no request is lost is for test_rolling_update."""
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: len(ready(kubectl, "web")) == 4)
    old = ready(kubectl, "web")
    assert [curl(kubectl, address) for address in old] == ["version 1"] * 4
    kubectl("set", "env", "deployment/web", "SERVE_PORT_8080=version 2")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: not set(ready(kubectl, "web")) & set(old))
    assert [curl(kubectl, address) for address in ready(kubectl, "web")] == ["version 2"] * 4


def all_tiers_answer(address: str) -> bool:
    """Does the shop answer? That a pod is ready is known a moment before the nodes' tables lead to it."""
    try:
        ask(f"{address}/nobody", "GET")
    except HTTPError:
        return False
    return True


@shows("shop")
def _shop(kubectl: Kubectl) -> None:
    tiers = {"cart": 2, "front": 2, "orders": 2, "store": 1}
    wait(kubectl, "pod", "condition=Ready", "-l", "app=shop")
    eventually(lambda: {tier: len(ready(kubectl, tier)) for tier in tiers} == tiers)
    for tier in ("cart", "orders", "store"):
        host = kubectl("get", "service", tier, "-o", "jsonpath={.spec.clusterIP}")
        assert kubectl("exec", "deployment/front", "--", "getent", "hosts", tier).split()[0] == host
    with forwarded(kubectl, "service/front", 80) as address:
        eventually(lambda: all_tiers_answer(address))
        assert ask(f"{address}/anna/cart", "POST", "book") == ["book"]
        assert ask(f"{address}/anna/cart", "POST", "pen") == ["book", "pen"]
        assert ask(f"{address}/bert", "GET") == {"cart": [], "orders": []}
        assert ask(f"{address}/anna/orders", "POST") == ["book", "pen"]
        kubectl("exec", "store-0", "--", "kill", "1", code=None)  # its own end may come first
        eventually(lambda: kubectl("get", "pod", "store-0", "-o", "jsonpath={..restartCount}") == "1")
        wait(kubectl, "pod/store-0", "condition=Ready")
        eventually(lambda: all_tiers_answer(address))
        assert ask(f"{address}/anna", "GET") == {"cart": [], "orders": ["book", "pen"]}


@shows("load-balancer")
def _load_balancer(kubectl: Kubectl) -> None:
    def holder() -> str:
        return kubectl("get", "lease", "load-balancer-site", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")

    def visit() -> str:
        return kubectl("exec", "site-visitor", "--", "curl", "-s", "-m", "5", f"http://{ip}/", code=None)

    wait(kubectl, "pod/site-visitor", "condition=Ready")
    kubectl("rollout", "status", "deployment/site", "--timeout=60s")
    wait(kubectl, "service/site", "jsonpath={.status.loadBalancer.ingress[0].ip}")
    ip = kubectl("get", "service", "site", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
    homes = {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in pods(kubectl, "app=site")}
    eventually(lambda: holder() in homes)
    eventually(lambda: "site-" in visit())
    answer = json.loads(visit())
    assert answer["source"] == "203.0.113.10"
    assert answer["name"] == homes[holder()]


@shows("sidecar")
def _sidecar(kubectl: Kubectl) -> None:
    wait(kubectl, "pod/shared", "condition=Ready")
    status = pods(kubectl, "app=shared")[0]["status"]
    prepare, clock = status["initContainerStatuses"]
    assert prepare["state"]["terminated"]["exitCode"] == 0
    assert clock["started"]
    begins = [prepare["state"]["terminated"], *(c["state"]["running"] for c in (clock, *status["containerStatuses"]))]
    assert [c["startedAt"] for c in begins] == sorted(c["startedAt"] for c in begins)
    at = f"{status['podIP']}:8080"
    assert curl(kubectl, f"{at}/greeting.txt") == "Prepared by an init container.\n"
    first = curl(kubectl, f"{at}/time.txt")
    eventually(lambda: curl(kubectl, f"{at}/time.txt") != first)
    with kubectl.start("logs", "--follow", "shared", "-c", "clock") as log:
        assert log.stdout is not None
        assert log.stdout.readline() == "the clock starts\n"
        kubectl("delete", "pod", "shared")
        assert log.communicate(timeout=30)[0] == "the clock stops\n"
    kubectl("apply", "-f", str(FOLDER / "sidecar.yaml"))


@shows("statefulset")
def _statefulset(kubectl: Kubectl) -> None:
    def names() -> dict[str, str]:
        label = "kubernetes.io/service-name=members"
        slices = json.loads(kubectl("get", "endpointslices", "-l", label, "-o", "json"))["items"]
        return {e["hostname"]: e["addresses"][0] for s in slices for e in s["endpoints"] if e["conditions"]["ready"]}

    kubectl("rollout", "status", "statefulset/member", "--timeout=60s")
    eventually(lambda: list(names()) == ["member-0", "member-1", "member-2"])
    began = [pod["metadata"]["creationTimestamp"] for pod in pods(kubectl, "app=member")]
    assert began == sorted(began)
    for name, address in names().items():
        assert kubectl("exec", name, "--", "hostname", "--fqdn") == f"{name}.members.default.svc.cluster.local\n"
        assert kubectl("exec", "member-0", "--", "curl", "-s", f"http://{address}:8080/hostname") == name
        assert kubectl("exec", "member-0", "--", "curl", "-s", f"http://{name}.members:8080/hostname") == name
    old = kubectl("get", "pod", "member-1", "-o", "jsonpath={.metadata.uid}")
    kubectl("delete", "pod", "member-1")
    eventually(
        lambda: kubectl("get", "pod", "member-1", "-o", "jsonpath={.metadata.uid}", "--ignore-not-found") not in ("", old)
    )
    wait(kubectl, "pod/member-1", "condition=Ready")
    eventually(lambda: names().keys() == {"member-0", "member-1", "member-2"})
    assert curl(kubectl, f"{names()['member-1']}:8080/hostname") == "member-1"
    eventually(lambda: curl(kubectl, "member-1.members:8080/hostname") == "member-1")
