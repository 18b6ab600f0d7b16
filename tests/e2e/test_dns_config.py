"""The configuration of the cluster's DNS, edited with kubectl while pods ask; the query log; and names while the API is away."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podplane.dns.config import KEY
from tests.e2e.conftest import Kubectl, Podplane, running, until

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not shutil.which("dig"), reason="dig is not installed")]
MAP = ("-n", "kube-system", "configmap", "podplane-dns")
POD = "echo-node1-1"
COREFILE = ". {\n hosts {\n  192.0.2.9 imported.example\n  fallthrough\n }\n forward . /etc/resolv.conf\n}\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """One node, one pod."""
    with running(tmp_path_factory, "--nodes", "1", "--pods-per-node", "1") as started:
        yield started


@pytest.fixture
def edit(lab: Podplane, kubectl: Kubectl, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Write another configuration with `kubectl edit`; the first one is back at the end."""
    before = lab.api.get("configmaps", "kube-system", "podplane-dns")["data"][KEY]
    document, editor = tmp_path / "document", tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\ncp {document} "$1"\n')
    editor.chmod(0o700)
    kubectl.environment["KUBE_EDITOR"] = str(editor)

    def write(text: str) -> str:
        found = json.loads(kubectl("get", *MAP, "-o", "json"))
        document.write_text(json.dumps({**found, "data": {KEY: text}}))
        return kubectl("edit", *MAP)

    yield write
    write(f"{before}\n# as before\n")


def ask(lab: Podplane, *words: str) -> list[str]:
    """What dig finds in a pod, short."""
    return lab("exec", POD, "--", "dig", "+short", "+tries=1", *words).stdout.split()


def events(kubectl: Kubectl) -> list[str]:
    found = json.loads(kubectl("get", "events", "-n", "kube-system", "-o", "json", "--field-selector", "reason=InvalidConfig"))
    return [one["message"] for one in found["items"]]


def test_what_is_edited_counts_at_once_and_a_mistake_changes_nothing(
    lab: Podplane, kubectl: Kubectl, edit: Callable[[str], str]
) -> None:
    rewrite = "rewrites: [{name: old.example, to: kubernetes.default.svc.cluster.local}]"
    edit(f"ttl: 33\nhosts: {{192.0.2.7: [db.corp.example]}}\n{rewrite}")
    until(lambda: ask(lab, "db.corp.example") == ["192.0.2.7"])
    assert ask(lab, "old.example") == ["kubernetes.default.svc.cluster.local.", "10.96.0.1"]
    assert ask(lab, "-x", "192.0.2.7") == ["db.corp.example."]
    assert " 33 IN A" in " ".join(lab("exec", POD, "--", "dig", "+noall", "+answer", "old.example").stdout.split())
    edit("hosts: {192.0.2.300: [db.corp.example]}")
    until(lambda: events(kubectl))
    said = "hosts.192.0.2.300: '192.0.2.300' is no IP address"
    assert events(kubectl) == [f"the last good configuration goes on: {said}"]
    assert said in lab("dns", "status", code=1).stdout
    assert ask(lab, "db.corp.example") == ["192.0.2.7"]
    edit("hosts: {192.0.2.8: [db.corp.example]}")
    until(lambda: ask(lab, "db.corp.example") == ["192.0.2.8"])
    assert "podplane-dns:" not in lab("dns", "status", code=None).stdout


def test_no_question_is_lost_while_the_configuration_changes(lab: Podplane, edit: Callable[[str], str]) -> None:
    """A client without a second try asks all the time."""
    loop = "n=0; while [ $n -lt 60 ]; do dig +short +tries=1 +time=1 kubernetes.default.svc.cluster.local; n=$((n+1)); done"
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.extend(lab("exec", POD, "--", "sh", "-c", loop).stdout.split()))
    asking.start()
    for ttl in (10, 11):
        edit(f"ttl: {ttl}")
    asking.join()
    assert found == ["10.96.0.1"] * 60


def test_an_imported_corefile_is_applied(lab: Podplane, kubectl: Kubectl, edit: Callable[[str], str]) -> None:
    imported = lab("dns", "import-corefile", "-", stdin=COREFILE).stdout
    assert "configmap/podplane-dns configured" in kubectl("apply", "-f", "-", stdin=imported, code=None)
    until(lambda: ask(lab, "imported.example") == ["192.0.2.9"])


def test_questions_of_a_pod_are_logged(lab: Podplane, edit: Callable[[str], str]) -> None:
    assert "nothing is logged" in lab("dns", "log", code=2).stderr
    edit(f"log: {{pods: [default/{POD}]}}")
    until(lambda: lab("dns", "log", code=None).returncode == 0)
    ask(lab, "kubernetes.default.svc.cluster.local")
    ask(lab, "nowhere.invalid", "AAAA")
    lines = [json.loads(line) for line in lab("dns", "log", "--pod", POD, "-o", "json").stdout.splitlines()]
    assert [(one["pod"], one["name"], one["type"], one["rcode"], one["source"]) for one in lines] == [
        (f"default/{POD}", "kubernetes.default.svc.cluster.local.", "A", "NOERROR", "Service default/kubernetes"),
        (f"default/{POD}", "nowhere.invalid.", "AAAA", "NXDOMAIN", "special name (RFC 6761)"),
    ]
    assert "rcode=NXDOMAIN" in lab("dns", "log", "--for", "invalid").stdout
    assert "name=nowhere.invalid. type=AAAA" in (lab.folder.path / "lab.log").read_text()


def test_without_the_api_names_stay_as_they_were_and_soon_after_they_are_right(lab: Podplane) -> None:
    """coredns/coredns#3879, #5642: with the only node the name server is cut off."""

    def make(name: str, ip: str) -> None:
        lab.api.create("services", "default", {"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})

    def found() -> list[list[str]]:
        return [ask(lab, f"{name}.default.svc.cluster.local") for name in ("goes", "moves", "comes")]

    make("goes", "10.96.7.1")
    make("moves", "10.96.7.2")
    until(lambda: found() == [["10.96.7.1"], ["10.96.7.2"], []])
    lab("fault", "node1", "--cut-api")
    time.sleep(0.5)  # what is on its way arrives
    lab.api.delete("services", "default", "goes")
    lab.api.delete("services", "default", "moves")
    make("moves", "10.96.7.1")
    make("comes", "10.96.7.2")
    assert found() == [["10.96.7.1"], ["10.96.7.2"], []]
    assert "a fault cuts it off" in lab("dns", "status", code=1).stdout
    lab("fault", "node1", "--clear")
    until(lambda: found() == [[], ["10.96.7.1"], ["10.96.7.2"]])
