"""A lab whose objects are made, changed and deleted by chance, and every command that a user has, run on them.

Each step has a source of chance of its own (seed and number), and chooses among what is there such that a step that is left out changes
the choice of another one only where it chose what is missing: so a failure is repeated by its seed, and made shorter by naming steps.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from podplane.apiserver.kinds.resource import Resource
from tests.e2e.conftest import COMMAND, Podplane
from tests.generated import BY_ID, STORED, Generator, Object, repaired

NAMESPACES = ("default", "odd")
TRIES = 10
"""So often an object that is refused is made simpler."""
HANG_SECONDS = 45.0
"""No command of these takes that long."""
KEPT = ("namespaces", "customresourcedefinitions.apiextensions.k8s.io", "servicecidrs.networking.k8s.io")
"""Kinds of which only generated objects are deleted: without the others there is no cluster."""
BAD = ("Traceback (most recent call last)", "(InternalError)", "Internal Server Error", "panic:", "goroutine ", "SIGSEGV")
THING = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"a": [1, None, "ü"]}}


@dataclass(frozen=True, order=True)
class Made:
    """An object that was made."""

    id: str
    namespace: str
    name: str

    @property
    def row(self) -> Resource:
        """Its kind."""
        return BY_ID[self.id]

    @property
    def path(self) -> str:
        """Where it is served."""
        return f"{collection(self.row, self.namespace)}/{quote(self.name, safe='')}"

    @property
    def words(self) -> list[str]:
        """For kubectl."""
        return [self.id, self.name, *(["-n", self.namespace] if self.namespace else [])]


def collection(row: Resource, namespace: str) -> str:
    """Where objects of a kind are served."""
    base = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
    return f"{base}/namespaces/{namespace}/{row.plural}" if row.namespaced else f"{base}/{row.plural}"


class Failure(AssertionError):
    """Something that no command and no request may do."""


@dataclass
class Chaos:
    """One run. `silent_seconds` is how long a command may say nothing."""

    lab: Podplane
    home: Path
    seed: int
    silent_seconds: float
    made: set[Made] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    chance: random.Random = field(default_factory=random.Random)
    number: int = 0
    slow: list[str] = field(default_factory=list)
    _connection: http.client.HTTPSConnection | None = None

    def run(self, steps: Sequence[int]) -> None:
        """These steps, one after the other."""
        for self.number in steps:
            self.chance = random.Random(f"{self.seed}/{self.number}")
            self.step()

    def step(self) -> None:
        """An object is made or changed, then a command is run on something."""
        self.choose(CHANGES)(self)
        self.choose(COMMANDS)(self)

    def choose(self, table: Sequence[tuple[int, Callable[[Chaos], None]]]) -> Callable[[Chaos], None]:
        """A row of a table of weights."""
        weights, rows = zip(*table, strict=True)
        return self.chance.choices(rows, weights)[0]

    def pick(self, *ids: str) -> Made | None:
        """One of what was made (of these kinds, or any)."""
        found = [one for one in self.made if not ids or one.id in ids]
        return min(found, key=self._rank, default=None)

    def _rank(self, one: Made) -> bytes:
        return hashlib.sha256(f"{self.seed}/{self.number}/{one}".encode()).digest()

    def generator(self) -> Generator:
        """Objects of this step."""
        return Generator(self.chance, self.chance.choice((0.05, 0.15, 0.4)))

    # Requests.

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> tuple[int, Object]:
        """The API's answer; none is a failure of the server."""
        self.note(f"{method} {path} {'' if body is None else json.dumps(body, ensure_ascii=False)}")
        access = self.lab.folder.access()
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(access.host, access.port, timeout=30, context=access.context())
        headers = {"authorization": f"Bearer {access.bearer()}", "content-type": content_type}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = self._connection.getresponse()
            status, found = answer.status, json.loads(answer.read() or b"{}")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self.failure(f"{method} {path}: {error!r}") from None
        if status >= 500:
            raise self.failure(f"{method} {path}: {status} {found}")
        return status, found

    def create(self, row: Resource, namespace: str) -> Object | None:
        """Make an object, simpler and simpler until it is accepted; what was asked for, when it was."""
        made: Object | None = self.generator().object(row)
        for _ in range(TRIES):
            assert made is not None
            status, answer = self.request("POST", collection(row, namespace), made)
            if status in (200, 201):
                self.made.add(Made(row.id, namespace if row.namespaced else "", answer["metadata"]["name"]))
                return made
            if status != 422 or (made := repaired(made, answer)) is None:
                return None
        return None

    # Commands.

    def podplane(self, *words: str) -> None:
        """A command of podplane."""
        self.command([*COMMAND, *words], self.lab.environment, f"podplane {' '.join(words)}")

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """kubectl."""
        path = str(Path(sys.executable).with_name("kubectl"))
        environment = {**os.environ, "KUBECONFIG": str(self.lab.folder.kubeconfig), "HOME": str(self.home)}
        return self.command([path, *words], environment, f"kubectl {' '.join(words)} {stdin}", stdin)

    def command(self, words: Sequence[str], environment: Mapping[str, str], shown: str, stdin: str = "") -> str:
        """Run it: it ends, by itself, without a traceback, and it does not say nothing for long."""
        self.note(shown)
        began = time.monotonic()
        with subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            silent = False
            try:
                output, _ = process.communicate(stdin.encode(), self.silent_seconds)
            except subprocess.TimeoutExpired as expired:
                silent = not expired.output
                try:
                    output, _ = process.communicate(timeout=HANG_SECONDS)
                except subprocess.TimeoutExpired as hung:
                    process.kill()
                    raise self.failure(f"{shown}: goes on after {HANG_SECONDS:.0f} s: {hung.output!r}") from None
        text = output.decode(errors="replace")
        if silent:
            self.slow.append(f"step {self.number}: {time.monotonic() - began:.1f} s: {shown[:300]}\n{text[:300]}")
        if process.returncode < 0 or any(bad in text for bad in BAD):
            raise self.failure(f"{shown}: exit status {process.returncode}\n{text[-4000:]}")
        return text

    def note(self, line: str) -> None:
        """Remember what was done."""
        self.log.append(f"step {self.number}: {line}")

    def failure(self, what: str) -> Failure:
        """With what is needed to see it again."""
        last = "\n".join(line[:3000] for line in self.log[-25:])
        again = f"PODPLANE_CHAOS_SEED={self.seed} PODPLANE_CHAOS_STEPS={self.number + 1}"
        return Failure(
            f"{what}\n\nAgain: {again} pytest tests/e2e/test_chaos.py (PODPLANE_CHAOS_ONLY=1,5,… names steps)\nThe last steps:\n{last}"
        )


# Changes.


def make(chaos: Chaos) -> None:
    """An object of any kind."""
    row = chaos.chance.choice(STORED)
    chaos.create(row, chaos.chance.choice(NAMESPACES))


def make_network(chaos: Chaos) -> None:
    """An object of a kind that the network reads."""
    row = BY_ID[chaos.chance.choice(("services", "pods", "endpointslices.discovery.k8s.io", "endpoints", "nodes"))]
    chaos.create(row, chaos.chance.choice(NAMESPACES))


def make_by_kubectl(chaos: Chaos) -> None:
    """What the API accepts is applied once more: nothing changes, or the object is a new one."""
    row, namespace = chaos.chance.choice(STORED), chaos.chance.choice(NAMESPACES)
    made = chaos.create(row, namespace)
    if made is not None:
        verb = chaos.chance.choice(
            (["apply"], ["apply", "--validate=false"], ["diff"], ["replace"], ["create", "--dry-run=server"])
        )
        words = [*verb, "-f", "-", *(["-n", namespace] if row.namespaced else [])]
        chaos.kubectl(*words, stdin=json.dumps(made))


def make_thing(chaos: Chaos) -> None:
    """A custom resource, whose CRD may or may not be there."""
    chaos.kubectl("apply", "-f", "-", stdin=json.dumps(THING))
    chaos.kubectl("get", "things", "-A", "-o", "wide")


def patch(chaos: Chaos) -> None:
    """Merge another object of its kind into one."""
    one = chaos.pick()
    if one is not None:
        new = chaos.generator().object(one.row)
        new["metadata"] = {"labels": new["metadata"]["labels"], "annotations": new["metadata"].get("annotations", {})}
        chaos.request("PATCH", one.path, new, "application/merge-patch+json")


def patch_strategically(chaos: Chaos) -> None:
    """Likewise, with lists merged by their keys."""
    one = chaos.pick()
    if one is not None:
        new = chaos.generator().object(one.row)
        new["metadata"] = {"labels": new["metadata"]["labels"]}
        chaos.request("PATCH", one.path, new, "application/strategic-merge-patch+json")


def set_status(chaos: Chaos) -> None:
    """A status that nobody's controller would write."""
    one = chaos.pick(*(row.id for row in STORED if row.has_status))
    if one is not None:
        body = {"status": chaos.generator().status(one.row)}
        chaos.request("PATCH", f"{one.path}/status", body, "application/merge-patch+json")


def change_a_node(chaos: Chaos) -> None:
    """Labels, annotations, taints and status of a node that runs."""
    name, generator = chaos.chance.choice(("node1", "node2")), chaos.generator()
    row = BY_ID["nodes"]
    body: Object = {"metadata": {"labels": generator.labels(row)}}
    if chaos.chance.random() < 0.3:
        body["spec"] = {"unschedulable": chaos.chance.random() < 0.3, "taints": [{"key": "a", "effect": "PreferNoSchedule"}]}
    chaos.request("PATCH", f"/api/v1/nodes/{name}", body, "application/merge-patch+json")


def take_back(chaos: Chaos) -> None:
    """Finalizers go."""
    one = chaos.pick()
    if one is not None:
        chaos.request("PATCH", one.path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")


def delete(chaos: Chaos) -> None:
    """One of what was made."""
    one = chaos.pick()
    if one is not None:
        policy = chaos.chance.choice(("Foreground", "Background", "Orphan"))
        chaos.request("DELETE", one.path, {"gracePeriodSeconds": chaos.chance.choice((0, 1)), "propagationPolicy": policy})


def delete_all(chaos: Chaos) -> None:
    """All of a kind in a namespace."""
    row = chaos.chance.choice([row for row in STORED if row.id not in KEPT and row.namespaced])
    chaos.request("DELETE", collection(row, "odd"), {"gracePeriodSeconds": 0})


CHANGES: tuple[tuple[int, Callable[[Chaos], None]], ...] = (
    (6, make),
    (6, make_network),
    (2, make_by_kubectl),
    (1, make_thing),
    (3, patch),
    (2, patch_strategically),
    (3, set_status),
    (2, change_a_node),
    (2, take_back),
    (2, delete),
    (1, delete_all),
)


# Commands.


def services(chaos: Chaos) -> None:
    """`podplane services`: the overview, or a Service."""
    one = chaos.pick("services")
    if one is None or chaos.chance.random() < 0.4:
        chaos.podplane("services", *chaos.chance.choice((["-A"], [], ["-A", "-o", "json"], ["-n", "odd", "-o", "yaml"])))
    else:
        output = chaos.chance.choice(([], ["-o", "json"], ["-o", "yaml"]))
        chaos.podplane("services", one.name, "-n", one.namespace, *output)


def get(chaos: Chaos) -> None:
    """`podplane get`."""
    output = chaos.chance.choice(([], ["-o", "wide"], ["-o", "json"], ["-o", "yaml"]))
    chaos.podplane(
        "get", *chaos.chance.choice((["pods", "-A"], ["nodes"], ["pods", "-n", "odd"], ["pods", "-l", "app"])), *output
    )


def status(chaos: Chaos) -> None:
    """`podplane status`."""
    chaos.podplane("status", *chaos.chance.choice(([], ["--node", "all"], ["--node", "node1", "-o", "json"], ["--node", "a"])))


def with_a_pod(chaos: Chaos) -> None:
    """`podplane exec` and `delete`."""
    one = chaos.pick("pods")
    if one is None or chaos.chance.random() < 0.3:
        chaos.podplane("exec", "echo-node1-1", "--", "true")
    elif chaos.chance.random() < 0.7:
        chaos.podplane("exec", "-n", one.namespace, one.name, "--", "true")
    else:
        chaos.request("PATCH", one.path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        chaos.podplane("delete", "pod", one.name, "-n", one.namespace, "--now")


def run(chaos: Chaos) -> None:
    """`podplane run`, and the end of it."""
    where = chaos.chance.choice(([], ["--node", "node2"], ["--node", "a"], ["-n", "odd"], ["--replicas", "2"]))
    chaos.podplane("run", "ran", *where, "--", *chaos.chance.choice((["sleep", "60"], ["false"], ["no-such-program"])))
    chaos.kubectl("delete", "pods", "-A", "-l", "run=ran", "--now", "--wait=false")


def publish(chaos: Chaos) -> None:
    """`podplane publish`."""
    one = chaos.pick("services")
    if one is None or chaos.chance.random() < 0.4:
        chaos.podplane("publish", *chaos.chance.choice((["-A"], [], ["--stop", "--all", "-A"])))
    else:
        chaos.podplane("publish", f"{chaos.chance.randrange(20000, 30000)}:svc/{one.name}", "-n", one.namespace)


def others(chaos: Chaos) -> None:
    """`podplane kubeconfig` and `fault`."""
    words = (
        ["kubeconfig"],
        ["fault", "node1"],
        ["fault", "a"],
        ["fault", "node2", "--restart-agent"],
        ["fault", "node1", "--flush-nftables"],
        ["fault", "node1", "--delete-route"],
        ["fault", "node2", "--clear"],
    )
    chaos.podplane(*chaos.chance.choice(words))


def check(chaos: Chaos) -> None:
    """`podplane check`."""
    chaos.podplane("check", *chaos.chance.choice(([], ["--json"], ["--all"])))


def show(chaos: Chaos) -> None:
    """`kubectl get` of a whole kind."""
    row = chaos.chance.choice(STORED)
    form = chaos.chance.choice(("wide", "json", "yaml", "name", "wide", "custom-columns=A:.metadata.name,B:.spec"))
    chaos.kubectl("get", row.id, "-A", "-o", form, *chaos.chance.choice(([], ["--show-labels"], ["--sort-by=.metadata.name"])))


def describe(chaos: Chaos) -> None:
    """`kubectl describe` of an object."""
    one = chaos.pick()
    if one is not None:
        chaos.kubectl("describe", *one.words)


def look(chaos: Chaos) -> None:
    """What kubectl tells of a cluster."""
    one = chaos.pick() or Made("pods", "default", "echo-node1-1")
    words = (
        ["events", "-A"],
        ["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ["top", "pods", "-A"],
        ["top", "nodes"],
        ["api-resources", "-o", "wide"],
        ["api-versions"],
        ["cluster-info"],
        ["get", "all", "-A", "-o", "wide"],
        ["explain", one.row.plural, "--recursive"],
        ["explain", f"{one.row.plural}.metadata"],
        ["auth", "can-i", "get", one.row.plural],
        ["get", *one.words, "-o", "jsonpath={.metadata}{.spec}{.status}"],
        ["wait", "--for=condition=Ready", "--timeout=1s", *one.words],
        ["wait", "--for=delete", "--timeout=1s", *one.words],
    )
    chaos.kubectl(*chaos.chance.choice(words))


def logs(chaos: Chaos) -> None:
    """`kubectl logs`, of pods and of what owns them."""
    one = chaos.pick("pods", "deployments.apps", "jobs.batch", "daemonsets.apps", "statefulsets.apps", "replicasets.apps")
    if one is not None:
        name = one.name if one.id == "pods" else f"{one.id}/{one.name}"
        chaos.kubectl(
            "logs", name, "-n", one.namespace, "--all-containers", *chaos.chance.choice(([], ["--tail=3", "--timestamps"]))
        )


def write(chaos: Chaos) -> None:
    """What kubectl changes in an object."""
    one = chaos.pick()
    if one is not None:
        words = (
            ["label", "--overwrite", *one.words, "a=b"],
            ["label", *one.words, "app-"],
            ["annotate", "--overwrite", *one.words, "a=b ü"],
            ["patch", *one.words, "--type=json", '-p=[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]'],
            ["patch", *one.words, "--type=merge", '-p={"spec":null}'],
            ["delete", *one.words, "--wait=false", "--now"],
            ["get", *one.words, "-o", "yaml", "--show-managed-fields"],
        )
        chaos.kubectl(*chaos.chance.choice(words))


def workloads(chaos: Chaos) -> None:
    """What kubectl does with workloads."""
    one = chaos.pick("deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch")
    if one is not None:
        target = [f"{one.id}/{one.name}", "-n", one.namespace]
        words = (
            ["scale", *target, f"--replicas={chaos.chance.randrange(4)}"],
            ["rollout", "status", *target, "--timeout=1s"],
            ["rollout", "history", *target],
            ["rollout", "restart", *target],
            ["rollout", "undo", *target],
            ["set", "image", *target, "*=podplane/echo"],
            ["expose", *target, "--port=80", "--name=exposed"],
            ["autoscale", *target, "--max=3"],
        )
        chaos.kubectl(*chaos.chance.choice(words))


def nodes(chaos: Chaos) -> None:
    """What kubectl does with nodes."""
    one = chaos.pick("nodes") or Made("nodes", "", "node2")
    words = (
        ["cordon", one.name],
        ["uncordon", "node2"],
        ["describe", "node", "node1"],
        ["taint", "nodes", one.name, "a=b:NoSchedule", "--overwrite"],
        ["taint", "nodes", "--all", "a-"],
        ["drain", one.name, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=1s", "--grace-period=0"],
    )
    chaos.kubectl(*chaos.chance.choice(words))


COMMANDS: tuple[tuple[int, Callable[[Chaos], None]], ...] = (
    (5, services),
    (3, get),
    (3, status),
    (3, with_a_pod),
    (2, run),
    (2, publish),
    (2, others),
    (1, check),
    (6, show),
    (6, describe),
    (4, look),
    (2, logs),
    (4, write),
    (3, workloads),
    (2, nodes),
)
