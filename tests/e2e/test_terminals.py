"""Every command on terminals that have not all characters, and what a small lab is called."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from podplane.cli.tables import is_completed, is_ready
from tests.e2e.conftest import COMMAND, Podplane

pytestmark = pytest.mark.e2e
COMMANDS = (
    "check",
    "check --json",
    "services",
    "services odd",
    "services odd -o yaml",
    "services odd -o json",
    "status",
    "status --node all",
    "get pods -o wide",
    "get pod odd -o json",
    "get pod odd -o yaml",
    "get nodes -o wide",
    "publish",
    "fault node1",
    "up",
    "kubeconfig",
    "--help",
    "run --help",
    "fault --help",
)
SOME = ("services odd", "get pod odd -o yaml", "status", "--help")
"""One of each way of writing."""
TERMINALS = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii", SOME),
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin-1", COMMANDS),
    "C": ({"LC_ALL": "C", "LANG": "C"}, "utf-8", SOME),
    "C as it is": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "ascii", COMMANDS),
}


def settled(pod: dict[str, Any]) -> bool:
    """Is it ready, or has it done its work?"""
    return is_ready(pod) or is_completed(pod)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Podplane:
    """A lab of one node, with an object whose annotation has letters of everywhere."""
    lab = Podplane(tmp_path_factory.mktemp("small"))
    lab("up", "--nodes", "1")
    note = {"annotations": {"note": "käse → 奶酪 𝄞"}}
    container = {"name": "main", "image": "podplane/echo"}
    metadata = {"name": "odd", "labels": {"app": "odd"}, **note}
    lab.api.create("pods", "default", {"metadata": metadata, "spec": {"containers": [container]}})
    spec = {"selector": {"app": "odd"}, "ports": [{"port": 80, "targetPort": 8080}]}
    lab.api.create("services", "default", {"metadata": {"name": "odd", **note}, "spec": spec})
    done = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "host/true", "command": ["true"]}]}
    lab.api.create("pods", "default", {"metadata": {"name": "done"}, "spec": done})
    for _ in lab.api.poll("pods", "default", lambda pods: len([p for p in pods if settled(p)]) == 2, 20):
        pass
    return lab


@pytest.fixture(scope="module", autouse=True)
def ends(small: Podplane) -> object:
    """No lab is left."""
    yield
    small("down", "--all", "--purge", code=None)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_no_command_fails_for_want_of_a_character(small: Podplane, terminal: str) -> None:
    environment, encoding, commands = TERMINALS[terminal]
    for command in commands:
        words = [*COMMAND, *command.split()]
        done = subprocess.run(words, env=small.environment | environment, capture_output=True, timeout=90)
        said = (done.stdout + done.stderr).decode(encoding)
        assert "Traceback" not in said, f"{command}: {said}"
        assert done.returncode == 0, f"{command}: {said}"


def test_marks_of_a_check_have_a_form_in_ascii(small: Podplane) -> None:
    done = subprocess.run([*COMMAND, "check"], env=small.environment | TERMINALS["ascii"][0], capture_output=True, timeout=90)
    assert b"\n+ every pod reaches every other pod" in done.stdout


def test_documents_say_the_same(small: Podplane) -> None:
    words = [*COMMAND, "get", "pod", "odd", "-o", "json"]
    done = subprocess.run(words, env=small.environment | TERMINALS["ascii"][0], capture_output=True, timeout=90)
    assert json.loads(done.stdout)["metadata"]["annotations"]["note"] == "käse → 奶酪 𝄞"


def test_arguments_that_are_no_text(small: Podplane) -> None:
    for words in (["get", "pod"], ["services"], ["delete", "pod"], ["publish"], ["fault"], ["exec"]):
        more = [b"--", b"ls"] if words == ["exec"] else []
        done = subprocess.run([*COMMAND, *words, b"\xff\xfe", *more], env=small.environment, capture_output=True, timeout=90)
        said = done.stderr.decode()
        assert (done.returncode, "Traceback" in said) == (2, False), f"{words}: {said}"


def test_one_node_is_one(small: Podplane) -> None:
    assert "1 node, 1 pod. " in small("up").stdout
    status = small("status").stdout
    assert " min 0 s" not in status and "0 min" not in status
    assert "  pods    1 of 1 ready, 1 completed\n" in status
    assert "Left out" not in small("check").stdout, "what has done its work is not missed"
    assert "this lab has room for" in small("run", "x", "--replicas", "99999", code=2).stderr


def test_what_a_running_lab_is_asked_to_be(small: Podplane) -> None:
    port = small.folder.endpoint().port
    assert "runs already: 1 node" in small("up", "--nodes", "1", "--port", str(port), "--with-processes").stdout
    for words, why in (
        (("--nodes", "2"), "runs with --nodes 1: "),
        (("--nodes", "0"), "0 nodes: a lab has 1 to 1000"),
        (("--port", "99999"), "--port 99999: give 1 to 65535"),
        (("--port", "1"), f"runs with --port {port}: "),
        (("--sandbox-only",), "runs with --with-processes: "),
        (("--masquerade-exclude", "192.0.2.0/24"), "runs with no --masquerade-exclude: "),
    ):
        said = small("up", *words, code=2).stderr
        assert why in said and said.count("\n") == 1
