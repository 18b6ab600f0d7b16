"""What resolver libraries in pods get: glibc's, musl's, Go's and dnspython's, under each dnsPolicy; what dig gets; and how often they ask.

The upstream of this lab is a name server of dnspython in a pod (`resolvers/upstream.py`). Libraries whose compilers this machine does not
have are left out.
"""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Podplane

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("resolvers")]
Object = dict[str, Any]
SOURCES = Path(__file__).with_name("resolvers")
ASK = (SOURCES / "ask.py").read_text()
MANY = [f"10.9.1.{n}" for n in range(1, 101)]
CONFIG = "hosts: {192.0.2.9: [hosts.corp.example]}\nzones: {corp.example: [%(server)s]}\nupstreams: [%(server)s]\n"
SHELL = {"name": "main", "image": "host/sleep", "command": ["sleep", "infinity"]}
DIG = shutil.which("dig")
GETENT = ["getent", "ahosts"]


def programs(folder: Path) -> dict[str, str | list[str]]:
    """The libraries that can be asked here, and how; programs are made in this folder."""
    found: dict[str, str | list[str]] = {"glibc": GETENT, "python": "python", "dnspython": "dnspython"}
    if compiler := shutil.which("musl-gcc"):
        subprocess.run([compiler, "-static", "-o", folder / "musl", SOURCES / "resolve.c"], check=True)
        found["musl"] = ["/run/musl"]
    if compiler := shutil.which("go"):
        subprocess.run([compiler, "build", "-ldflags=-s -w", "-o", folder / "go", SOURCES / "resolve.go"], check=True)
        found["go"] = ["/run/go"]
    return found


class Pods:
    """Pods of each dnsPolicy in a lab with some Services, and what their libraries get."""

    def __init__(self, lab: Podplane, folder: Path) -> None:
        self.lab = lab
        self.libraries = programs(folder)
        packed = subprocess.run(["tar", "-C", folder, "-czf", "-", "."], check=True, capture_output=True).stdout
        self.archive = base64.b64encode(packed).decode()
        self.equipped: set[str] = set()
        server = self.pod("upstream", [sys.executable, "-c", (SOURCES / "upstream.py").read_text(), "$(IP)"])
        self.config = CONFIG % {"server": server["status"]["podIP"]}
        self.configure(self.config)
        services(lab)
        self.pod("first")
        self.pod("default", dnsPolicy="Default")
        self.pod("host", hostNetwork=True)
        self.pod("host-first", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")
        own = {
            "nameservers": ["10.96.0.10"],
            "searches": ["shop.svc.lab.example"],
            "options": [{"name": "ndots", "value": "2"}],
        }
        self.pod("none", dnsPolicy="None", dnsConfig=own)

    def configure(self, text: str) -> None:
        """Let the name servers go by this."""
        self.lab.api.patch("configmaps", "kube-system", "podplane-dns", {"data": {"config.yaml": text}})

    def pod(self, name: str, command: list[str] | None = None, **spec: Any) -> Object:
        """A pod that runs."""
        ip = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        main = {**SHELL, "env": [ip], **({"command": command} if command else {})}
        body = {"metadata": {"name": name}, "spec": {"containers": [main], **spec}}
        self.lab.api.create("pods", "default", body)
        for found in self.lab.api.poll("pods", "default", lambda pods: any(runs(one, name) for one in pods), 20):
            last = found
        return next(one for one in last if one["metadata"]["name"] == name)

    @functools.cache  # noqa: B019  # it lives as long as the module
    def found(self, pod: str) -> dict[str, dict[str, list[str]]]:
        """The addresses that each library has for each name."""
        return self.ask(pod, {"libraries": self.libraries, "names": [*POLICIES[pod]]})

    def ask(self, pod: str, what: Object) -> Any:
        """What `resolvers/ask.py` says."""
        if pod not in self.equipped:
            self.equipped.add(pod)
            self.lab("exec", "-i", pod, "--", "sh", "-c", "base64 -d | tar -C /run -xzf -", stdin=self.archive)
        return json.loads(self.lab("exec", pod, "--", sys.executable, "-c", ASK, json.dumps(what)).stdout)

    def dig(self, *questions: str) -> list[str]:
        """What dig says to each question."""
        script = "; echo ----; ".join(f"dig +tries=2 {question}" for question in questions)
        return self.lab("exec", "first", "--", "sh", "-c", script).stdout.split("----\n")


def runs(pod: Object, name: str) -> bool:
    return bool(pod["metadata"]["name"] == name and pod.get("status", {}).get("phase") == "Running")


def services(lab: Podplane) -> None:
    """The Services of the tests."""
    api = lab.api
    api.create("namespaces", "", {"metadata": {"name": "shop"}})
    ports = [{"name": "http", "port": 80}]
    for namespace, name, spec in (
        ("default", "api", {"clusterIP": "10.96.7.1", "ports": ports}),
        ("shop", "api", {"clusterIP": "10.96.7.2", "ports": ports}),
        (
            "default",
            "dual",
            {"clusterIPs": ["10.96.7.3", "fd00:10:96::73"], "ipFamilyPolicy": "RequireDualStack", "ports": ports},
        ),
        ("default", "db", {"clusterIP": "None", "ports": ports}),
        ("default", "many", {"clusterIP": "None", "ports": ports}),
        ("default", "out", {"type": "ExternalName", "externalName": "db.corp.example"}),
        ("default", "far", {"type": "ExternalName", "externalName": "far.example"}),
        ("default", "chain", {"type": "ExternalName", "externalName": "out.default.svc.lab.example"}),
        ("default", "circle", {"type": "ExternalName", "externalName": "circle.default.svc.lab.example"}),
    ):
        api.create("services", namespace, {"metadata": {"name": name}, "spec": spec})
    endpoints(lab, "db", [{"addresses": [f"10.9.0.{n}"], "hostname": f"db-{n}"} for n in (1, 2)])
    endpoints(lab, "many", [{"addresses": [ip]} for ip in MANY])


def endpoints(lab: Podplane, service: str, found: list[Object]) -> None:
    """A slice of a Service without a selector."""
    labels = {"kubernetes.io/service-name": service}
    ports = [{"name": "http", "port": 80}]
    body = {"metadata": {"name": service, "labels": labels}, "addressType": "IPv4", "endpoints": found, "ports": ports}
    lab.api.create("endpointslices.discovery.k8s.io", "default", body)


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """The pods of a lab of two nodes, whose names are in a domain of its own."""
    lab = Podplane(tmp_path_factory.mktemp("lab"))
    try:
        lab("up", "--nodes", "2", "--cluster-domain", "lab.example")
        yield Pods(lab, tmp_path_factory.mktemp("resolvers"))
    finally:
        lab("down", "--all", "--purge", code=None)


API, SHOP, DUAL = ["10.96.7.1"], ["10.96.7.2"], ["10.96.7.3", "fd00:10:96::73"]
DB, PEERS = ["192.0.2.7"], ["10.9.0.1", "10.9.0.2"]
NAMES: dict[str, list[str]] = {
    "api": API,
    "api.shop": SHOP,
    "api.shop.svc": SHOP,
    "API.Shop.SVC.Lab.Example": SHOP,
    "api.default.svc.lab.example": API,
    "api.default.svc.lab.example.": API,
    "dual": DUAL,
    "db": PEERS,
    "db-1.db": PEERS[:1],
    "db-2.db.default.svc.lab.example.": PEERS[1:],
    "db-3.db": [],
    "out": DB,
    "far": ["192.0.2.8"],
    "chain": DB,
    "db.corp.example": DB,
    "db.corp.example.": DB,
    "six.corp.example": ["2001:db8::7"],
    "hosts.corp.example": ["192.0.2.9"],
    "missing": [],
    "missing.shop": [],
    "db.corp.missing.default.svc.lab.example": [],
    "none.corp.example": [],
}
"""What a pod of the namespace `default` gets with ClusterFirst."""
SOME = (
    "api",
    "api.shop",
    "API.Shop.SVC.Lab.Example",
    "api.default.svc.lab.example.",
    "db-1.db",
    "out",
    "db.corp.example",
    "missing",
)
FULL = ("API.Shop.SVC.Lab.Example", "api.default.svc.lab.example.", "db.corp.example")
"""What needs no search domain."""
AS_THEY_ARE = {name: NAMES[name] if name in FULL else [] for name in SOME}
POLICIES = {
    "first": NAMES,
    "host-first": {name: NAMES[name] for name in SOME},
    "default": AS_THEY_ARE,
    "host": AS_THEY_ARE,
    "none": {**AS_THEY_ARE, "api": SHOP},
}
LIBRARIES = ("glibc", "python", "dnspython", "musl", "go")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("pod", POLICIES)
def test_libraries_find_what_their_pods_may_find(pods: Pods, pod: str, library: str) -> None:
    if library not in pods.libraries:
        pytest.skip(f"there is no compiler for {library} here")
    assert pods.found(pod)[library] == POLICIES[pod]


@pytest.mark.skipif(DIG is None, reason="there is no dig here, which marks the end")
def test_one_question_for_each_family_is_enough(pods: Pods) -> None:
    """With `ndots:5` and three search domains or more, for what is not in the first."""
    libraries = {key: pods.libraries[key] for key in ("glibc", "musl", "go") if key in pods.libraries}
    every = [(library, name) for library in libraries for name in ("db.corp.example", "hosts.corp.example", "api.shop")]
    asked = pods.ask("first", {"count": [[*libraries[library], name] for library, name in every]})
    for (library, name), found in zip(every, asked, strict=True):
        first = f"{name}.default.svc.lab.example"
        assert found == [f"1 {first}", f"28 {first}"], library


@pytest.mark.skipif(DIG is None, reason="there is no dig here, which marks the end")
def test_without_the_search_path_each_name_is_asked_for(pods: Pods) -> None:
    """`searchPath: false` counts at once."""
    domains = ("default.svc.lab.example", "svc.lab.example", "lab.example")
    wanted = {f"{type_} db.corp.example.{domain}" for type_ in (1, 28) for domain in domains}
    pods.configure(f"{pods.config}searchPath: false\n")
    end = time.monotonic() + 20
    while not wanted <= set(pods.ask("first", {"count": [[*GETENT, "db.corp.example"]]})[0]):
        assert time.monotonic() < end, "the search path is still followed"
    pods.configure(pods.config)
    while wanted <= set(pods.ask("first", {"count": [[*GETENT, "db.corp.example"]]})[0]):
        assert time.monotonic() < end, "the search path is not followed again"


def test_the_host_outside_asks_its_own_name_server(pods: Pods) -> None:
    pods.pod("stranger", nodeName="outside", hostNetwork=True)
    found = pods.lab("exec", "stranger", "--", "getent", "ahostsv4", "www.example.test").stdout
    assert found.split()[0] == "203.0.113.10"
    assert pods.lab("exec", "stranger", "--", "getent", "hosts", "api.default.svc.lab.example", code=2).stdout == ""


@pytest.mark.skipif(DIG is None, reason="there is no dig here")
def test_dig_gets_what_it_asks_for(pods: Pods) -> None:
    questions = {
        "+noall +comments +norec api.default.svc.lab.example": "status: NOERROR",
        "+noall +answer +noedns api.default.svc.lab.example": "10.96.7.1",
        "+noall +answer +tcp api.default.svc.lab.example": "10.96.7.1",
        "+noall +answer -x 10.96.7.1": "api.default.svc.lab.example.",
        "+noall +answer -x 10.9.0.1": "db-1.db.default.svc.lab.example.",
        "+noall +answer SRV _http._tcp.db.default.svc.lab.example": "db-2.db.default.svc.lab.example.",
        "+noall +answer SRV _http._tcp.api.default.svc.lab.example": "0 100 80 api.default.svc.lab.example.",
        "+noall +comments MX api.default.svc.lab.example": "ANSWER: 0, AUTHORITY: 1",
        "+noall +comments AAAA api.default.svc.lab.example": "status: NOERROR",
        "+noall +comments missing.default.svc.lab.example": "status: NXDOMAIN",
        "+noall +answer ANY api.default.svc.lab.example": "HINFO",
        "+noall +comments +nsid +cookie api.default.svc.lab.example": "status: NOERROR",
        "+noall +answer +search out": "db.corp.example.",
        "+noall +comments circle.default.svc.lab.example": "status: SERVFAIL",
        "+noall +answer ApI.dEfault.svc.lab.example": "ApI.dEfault.svc.lab.example.",
    }
    said = dict(zip(questions, pods.dig(*questions), strict=True))
    assert {question: part for question, part in questions.items() if part not in said[question]} == {}


@pytest.mark.skipif(DIG is None, reason="there is no dig here")
@pytest.mark.parametrize(
    ("name", "records", "fits"), [("many.corp.example", 27, 1232), ("many.default.svc.lab.example", 100, 65535)]
)
def test_an_answer_is_as_long_as_its_client_takes_it(pods: Pods, name: str, records: int, fits: int) -> None:
    """Cold, and again from what is kept (coredns/coredns#6149)."""
    sizes = {"+noedns": 512, "+bufsize=512": 512, "+bufsize=1232": 1232, "+bufsize=4096": 1232, "+tcp": 65535}
    for _ in range(2):
        for (how, size), text in zip(sizes.items(), pods.dig(*(f"+ignore {how} {name}" for how in sizes)), strict=True):
            flags = text.split(";; flags: ", 1)[1].split(";", 1)[0].split()
            answers = len([line for line in text.splitlines() if line[:1] not in ("", ";")])
            assert int(text.split("MSG SIZE  rcvd: ")[1].split()[0]) <= size
            assert (("tc" in flags), answers == records) == (size < fits, size >= fits), f"{how}: {text}"


def test_long_answers_lead_to_addresses(pods: Pods) -> None:
    """By TCP, or, in a musl that has none (before 1.2.4), as far as they go."""
    for library, found in pods.ask("first", {"libraries": pods.libraries, "names": ["many"]}).items():
        assert set(found["many"]) <= set(MANY)
        assert len(found["many"]) == len(MANY) or (library == "musl" and len(found["many"]) > 20), library


def test_peers_of_a_stateful_set_find_each_other_from_their_first_instruction(pods: Pods) -> None:
    """Names are looked up before they exist, and that is not kept past the change (kubernetes/kubernetes#92559)."""
    api = pods.lab.api
    selector = {"app": "peer"}
    spec: Object = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": [{"port": 80}]}
    api.create("services", "default", {"metadata": {"name": "peer"}, "spec": spec})
    waits = "until getent hosts $name; do sleep 0.1; done"
    script = f"for name in peer-0.peer peer-1.peer peer-2.peer; do {waits}; done; touch /tmp/all; exec sleep infinity"
    probe = {"exec": {"command": ["test", "-e", "/tmp/all"]}, "periodSeconds": 1}
    main = {**SHELL, "command": ["sh", "-c", script], "readinessProbe": probe}
    template = {"metadata": {"labels": selector}, "spec": {"containers": [main], "terminationGracePeriodSeconds": 0}}
    whole = {"serviceName": "peer", "replicas": 3, "podManagementPolicy": "Parallel", "selector": {"matchLabels": selector}}
    api.create("statefulsets.apps", "default", {"metadata": {"name": "peer"}, "spec": {**whole, "template": template}})

    def all_ready() -> bool:
        return api.get("statefulsets.apps", "default", "peer").get("status", {}).get("readyReplicas") == 3

    end = time.monotonic() + 30
    while not all_ready():
        assert time.monotonic() < end, "they do not find each other"
        time.sleep(0.1)


def test_a_service_that_appears_with_the_first_name_wins_at_once(pods: Pods) -> None:
    """A pod looked for `db.corp`, which only the search path has; then there is such a Service in its own namespace."""
    api = pods.lab.api
    libraries = {"glibc": pods.libraries["glibc"]}
    assert pods.ask("first", {"libraries": libraries, "names": ["api.shop"]})["glibc"]["api.shop"] == SHOP
    endpoint = [{"addresses": ["10.9.3.1"], "hostname": "api"}]
    api.create("services", "default", {"metadata": {"name": "shop"}, "spec": {"clusterIP": "None"}})
    endpoints(pods.lab, "shop", endpoint)
    end = time.monotonic() + 10
    while pods.ask("first", {"libraries": libraries, "names": ["api.shop"]})["glibc"]["api.shop"] != ["10.9.3.1"]:
        assert time.monotonic() < end, "the old answer stays"
    api.delete("services", "default", "shop")
