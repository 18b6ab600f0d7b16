"""Real labs, driven through the command line as a user would, each with state of its own."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from podplane.kubeapi.http import HttpClient
from podplane.lab.folder import Folder
from tests.e2e.forks import Forks

UP_OPTIONS = shlex.split(os.environ.get("PODPLANE_TEST_UP_OPTIONS", ""))
"""More options for each `podplane up` of these tests: `--agents-over-https`, say."""
BY_PROCESSES = () if UP_OPTIONS else ("test_host_ports", "test_services", "test_traffic_policies")
"""Modules whose agents are processes when nothing else is asked for, so that both ways are tried in every run; `make test-processes` runs
all of them so."""
COMMAND = [sys.executable, "-m", "podplane"]
PATIENCE = float(os.environ.get("PODPLANE_TEST_PATIENCE", "1"))
"""So many times slower is this machine: more where a processor is emulated (`tools.vm`)."""
SECONDS = 90.0 * PATIENCE
"""A command ends within these."""
_numbers = itertools.count(1)
forks = functools.cache(Forks)
"""Of this worker."""


class Podplane:
    """`podplane` with a state folder and a lab name of its own."""

    def __init__(self, home: Path, command: Sequence[str] = COMMAND) -> None:
        self.home = home
        self.command = command
        self.name = f"t{os.getpid()}-{next(_numbers)}"
        self.environment = {**os.environ, "XDG_STATE_HOME": str(home), "PODPLANE_LAB": self.name}

    def __call__(self, *words: str, code: int | None = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command; its exit status must be `code` (None: whatever it is)."""
        if self.command is COMMAND and forks().serves(words, self.environment, stdin):
            done = forks().run(words, self.environment, stdin, SECONDS)
        else:
            done = subprocess.run(
                [*self.command, *_with_options(words)],
                env=self.environment,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        if code is not None:
            assert done.returncode == code, f"podplane {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Begin a command and don't wait for it."""
        return subprocess.Popen(
            [*self.command, *_with_options(words)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )

    @property
    def folder(self) -> Folder:
        """The lab's folder."""
        os.environ["XDG_STATE_HOME"] = str(self.home)
        return Folder(self.name)

    @property
    def has_processes(self) -> bool:
        """Are its agents processes of their own?"""
        agents: str = json.loads(self.folder.spec.read_text())["agents"]
        return agents == "processes"

    @property
    def api(self) -> HttpClient:
        """A client of the lab's API."""
        return HttpClient(self.folder.access())

    def on_node(self, node: str, command: str) -> str:
        """Run a shell command in a node's own network; its output."""
        pod = f"at-{node}"
        if pod not in {p["metadata"]["name"] for p in self.api.objects("pods")}:
            container = {"name": "main", "image": "host/sleep", "command": ["sleep", "infinity"]}
            container |= {"securityContext": {"privileged": True}}
            spec: dict[str, Any] = {"nodeName": node, "hostNetwork": True, "containers": [container]}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec}
            self.api.create("pods", "default", body)
            for _ in self.api.poll("pods", "default", lambda pods: any(_runs(p, pod) for p in pods), 10):
                pass
        return self("exec", pod, "--", "sh", "-c", command).stdout

    def change_network(self, pod: str, script: str) -> None:
        """Run a shell script that may change a pod's network, in a container more."""
        container: dict[str, Any] = {"name": "admin", "image": "host/sh", "command": ["sh", "-ec", script]}
        container["securityContext"] = {"capabilities": {"add": ["NET_ADMIN"]}}
        self.api.patch("pods", "default", pod, {"spec": {"ephemeralContainers": [container]}}, "ephemeralcontainers")
        for _ in self.api.poll("pods", "default", lambda pods: any(_has_ended(p, pod) for p in pods), 10):
            pass


def _has_ended(pod: dict[str, Any], name: str) -> bool:
    """Has the container that changes its network?"""
    found = pod.get("status", {}).get("ephemeralContainerStatuses", ())
    return pod["metadata"]["name"] == name and any("terminated" in one["state"] for one in found)


def _with_options(words: Sequence[str]) -> list[str]:
    return ["up", *UP_OPTIONS, *words[1:]] if words[0] == "up" else list(words)


STREAM = """
import select, socket, sys
one = socket.create_connection((sys.argv[1], 8080), 5)
one.settimeout(20)
lines = one.makefile("rb")
count = 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    one.sendall(b"line\\n")
    count += len(lines.readline()) > 0
print(count, flush=True)
"""
"""Lines to an echo server and back over one connection, until its input ends."""


@contextlib.contextmanager
def stream(kubectl: Kubectl, client: str, server: str) -> Iterator[None]:
    """A connection of two pods that has to carry lines from the beginning to the end of this."""
    (ip, *_) = [one["ip"] for one in json.loads(kubectl("get", "pod", server, "-o", "json"))["status"]["podIPs"]]
    running = kubectl.start("exec", "-i", client, "--", "python3", "-c", STREAM, ip)
    assert running.stdout is not None and running.stdout.readline() == "begun\n"
    yield
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and int(out) > 0, "the connection ended"


def registered_again(lab: Podplane, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Delete a Node and wait until its machine has registered it again; before and after."""
    before: dict[str, Any] = lab.api.get("nodes", "", name)
    lab.api.delete("nodes", "", name)

    def found(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        uid = before["metadata"]["uid"]
        return [one for one in nodes if one["metadata"]["name"] == name and one["metadata"]["uid"] != uid]

    for nodes in lab.api.poll("nodes", "", lambda nodes: bool(found(nodes)), 10):
        after = found(nodes)
    return before, after[0]


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until it holds. The longer it takes the longer are the pauses: many ask by a command, and that takes a processor's time."""
    begin = time.monotonic()
    while not holds():
        waited = time.monotonic() - begin
        assert waited < seconds * PATIENCE, "it never came true"
        time.sleep(min(0.5, max(0.05, waited / 10)))


def _runs(pod: dict[str, Any], name: str) -> bool:
    return pod["metadata"]["name"] == name and pod.get("status", {}).get("phase") == "Running"


@contextlib.contextmanager
def nothing_left(home: Path) -> Iterator[Podplane]:
    """The command, with this folder; no lab is left in it at the end."""
    command = Podplane(home)
    try:
        yield command
    finally:
        command("down", "--all", "--purge", code=None)


@contextlib.contextmanager
def running(home: pytest.TempPathFactory, *options: str) -> Iterator[Podplane]:
    """A lab that was started with these options of `up`."""
    with nothing_left(home.mktemp("lab")) as command:
        command("up", *options)
        yield command


@contextlib.contextmanager
def ordinary_users() -> Iterator[Podplane]:
    """The command as `nobody` runs it, with nothing but a folder to write to; only root can become somebody else."""
    python = readable_python()
    if python is None:
        pytest.skip("there is no Python here that anybody may read")
    words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", python, "-m", "podplane"]
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        command = Podplane(Path(home), words)
        command.environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        try:
            yield command
        finally:
            command("down", "--all", "--purge", code=None)


def readable_python() -> str | None:
    """This Python, or the machine's own of the same version, if everybody may read it and this checkout."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}"):
        if all(map(_open_to_all, (candidate, __file__))):
            return candidate
    return None


def _open_to_all(path: str) -> bool:
    """May everybody get there?"""
    real = Path(os.path.realpath(path))
    return real.exists() and all(parent.stat().st_mode & 1 for parent in real.parents)


@pytest.fixture
def podplane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podplane]:
    """The command, and no lab left when the test is over."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with nothing_left(tmp_path) as command:
        yield command


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """One lab of three nodes with two pods each for the tests of a module that leave it as it was."""
    is_by_processes = request.module.__name__.rpartition(".")[2] in BY_PROCESSES
    with running(tmp_path_factory, "--pods-per-node", "2", *(["--agents", "processes"] if is_by_processes else [])) as started:
        yield started


MISTAKES = "Warning: NetworkPolicy ", "Warning: ClusterNetworkPolicy "


class Kubectl:
    """An unmodified kubectl that is shown the way to one lab, with a home of its own."""

    def __init__(self, lab: Podplane, home: Path) -> None:
        self.environment = {**os.environ, "KUBECONFIG": str(lab.folder.kubeconfig), "HOME": str(home)}
        self.path = str(Path(sys.executable).with_name("kubectl"))

    def __call__(self, *words: str, code: int | None = 0, stdin: str | None = None) -> str:
        """What it writes to stdout; to stderr it may only write when it fails, and then that is given too."""
        done = subprocess.run(
            [self.path, *words], env=self.environment, input=stdin, capture_output=True, text=True, timeout=100
        )
        if code is not None:
            assert done.returncode == code, f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        if code == 0:  # but for mistakes in policies, which many tests make on purpose: others look at them
            said = [line for line in done.stderr.splitlines() if not line.startswith(MISTAKES)]
            assert not said, f"kubectl {' '.join(words)} warns: {done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def warned(self, *words: str, stdin: str | None = None) -> list[str]:
        """The warnings of the API that it prints; what it was asked for is done."""
        done = subprocess.run(
            [self.path, *words], env=self.environment, input=stdin, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return [line.removeprefix("Warning: ") for line in done.stderr.splitlines()]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command and don't wait for it; its output can be read."""
        return subprocess.Popen(
            [self.path, *words], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def kubectl(lab: Podplane, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """kubectl, with the module's lab."""
    return Kubectl(lab, tmp_path_factory.mktemp("home"))


SLICES, SERVICE = "endpointslices.discovery.k8s.io", "kubernetes.io/service-name"


def name_servers(lab: Podplane) -> list[str]:
    """Nodes whose name server is an endpoint of kube-dns."""
    slices = [one for one in lab.api.objects(SLICES, "kube-system") if one["metadata"]["labels"].get(SERVICE) == "kube-dns"]
    ends = [end for one in slices if one["addressType"] == "IPv4" for end in one.get("endpoints") or ()]
    return [end["nodeName"] for end in ends if end.get("conditions", {}).get("ready", True)]
