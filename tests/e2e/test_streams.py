"""What flows between a user and a pod, with an unmodified kubectl and the official Python client: logs, commands, files, ports."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pty
import re
import select
import subprocess
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest
from kubernetes.stream import portforward, stream

from tests.e2e.conftest import Kubectl, Podplane, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("streams")]
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: podplane/agnhost, args: [netexec, --http-port=8080], ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
SAYS = """
apiVersion: v1
kind: Pod
metadata: {name: says, labels: {app: says}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: host/sh, command: [sh, -c, echo from the beginning]}
  containers:
  - {name: main, image: host/sh, command: [sh, -c, "seq 1 5; echo wrong >&2; exec sleep 1000"]}
  - {name: side, image: host/sh, command: [sh, -c, "echo beside; exec sleep 1000"]}
  - {name: never, image: example.org/nothing}
"""
HEARS = """
apiVersion: v1
kind: Pod
metadata: {name: hears}
spec: {containers: [{name: main, image: host/sh, stdin: true, command: [sh, -c, "while read x; do echo got $x; done"]}]}
"""
WAITS = """
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec: {containers: [{name: main, image: host/cat, tty: true, command: [cat]}]}
"""
BLOB = bytes(range(256)) * 20_480
"""5 MiB."""


@pytest.fixture(scope="module")
def core(lab: Podplane) -> Iterator[kubernetes.client.CoreV1Api]:
    """The official Python client."""
    with kubernetes.config.new_client_from_config(str(lab.folder.kubeconfig)) as client:
        yield kubernetes.client.CoreV1Api(client)


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> str:
    """A Deployment of two HTTP servers, and its Service."""
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    return "web"


@pytest.fixture(scope="module")
def says(kubectl: Kubectl) -> str:
    """A pod that has said something, and one of whose containers can't begin."""
    kubectl("apply", "-f", "-", stdin=SAYS)
    for container in ("main", "side"):
        condition = f"jsonpath={{.status.containerStatuses[?(@.name=='{container}')].state.running}}"
        kubectl("wait", f"--for={condition}", "pod/says", "--timeout=30s")
    until(lambda: "wrong" in kubectl("logs", "says", "-c", "main"))
    return "says"


def pipe(kubectl: Kubectl, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run kubectl with bytes."""
    return subprocess.run([kubectl.path, *words], env=kubectl.environment, input=data, capture_output=True, timeout=60)


# Logs.


def test_logs_of_each_container(kubectl: Kubectl, says: str) -> None:
    assert kubectl("logs", says, "-c", "main") == "1\n2\n3\n4\n5\nwrong\n"
    assert kubectl("logs", says, "-c", "first") == "from the beginning\n"
    assert kubectl("logs", says, "-c", "main", "--tail=2") == "5\nwrong\n"
    assert kubectl("logs", says, "-c", "main", "--limit-bytes=3") == "1\n2"
    assert kubectl("logs", says, "-c", "main", "--since=1h") == kubectl("logs", says, "-c", "main")
    assert kubectl("logs", says, "-c", "main", "--since-time=2999-01-01T00:00:00Z") == ""
    stamped = kubectl("logs", says, "-c", "side", "--timestamps")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z beside\n", stamped)


def test_logs_that_are_not_there_say_why(kubectl: Kubectl, says: str) -> None:
    assert "is waiting to start" in kubectl("logs", says, "-c", "never", code=1)
    assert "container nope is not valid for pod says" in kubectl("logs", says, "-c", "nope", code=1)
    refused = kubectl("logs", says, "-c", "main", "-p", code=1)
    assert 'previous terminated container "main" in pod "says" not found' in refused


def test_logs_of_several_containers_and_pods(kubectl: Kubectl, web: str) -> None:
    kubectl("run", "talks", "--image=host/sh", "--labels=app=talks", "--", "sh", "-c", "echo hello; exec sleep 1000")
    kubectl("run", "talks-too", "--image=host/sh", "--labels=app=talks", "--", "sh", "-c", "echo hello; exec sleep 1000")
    kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=talks", "--timeout=20s")
    until(lambda: kubectl("logs", "-l", "app=talks") == "hello\nhello\n")
    prefixed = kubectl("logs", "-l", "app=talks", "--prefix", "--all-containers").splitlines()
    assert sorted(prefixed) == ["[pod/talks-too/talks-too] hello", "[pod/talks/talks] hello"]
    done = pipe(kubectl, "logs", f"deployment/{web}")
    assert done.returncode == 0
    assert b"using pod/" in done.stderr
    kubectl("delete", "pod", "-l", "app=talks", "--now")


def test_logs_are_followed_to_the_end_of_the_container(kubectl: Kubectl, core: kubernetes.client.CoreV1Api) -> None:
    """Both followers get all lines, and end by themselves."""
    script = "until [ -e /tmp/go ]; do sleep 0.05; done; seq 1 2000; exit 3"
    kubectl("run", "counts", "--image=host/sh", "--restart=Never", "--", "sh", "-c", script)
    kubectl("wait", "--for=condition=Ready", "pod/counts", "--timeout=20s")
    expected = "".join(f"{i}\n" for i in range(1, 2001))
    heard: list[bytes] = []

    def follow() -> None:
        answer = core.read_namespaced_pod_log("counts", "default", follow=True, _preload_content=False)
        heard.extend(answer.stream())

    other = threading.Thread(target=follow)
    other.start()
    with kubectl.start("logs", "-f", "counts") as follower:
        kubectl("exec", "counts", "--", "touch", "/tmp/go")
        assert follower.communicate(timeout=20)[0] == expected
    other.join(20)
    assert b"".join(heard).decode() == expected
    assert core.read_namespaced_pod_log("counts", "default", tail_lines=1) == "2000\n"
    kubectl("delete", "pod", "counts", "--now")


def test_logs_of_the_run_before(kubectl: Kubectl) -> None:
    script = "echo first words; until [ -e /tmp/go ]; do sleep 0.05; done; echo last words; exit 1"
    kubectl("run", "again", "--image=host/sh", "--", "sh", "-c", script)
    kubectl("wait", "--for=condition=Ready", "pod/again", "--timeout=20s")
    kubectl("exec", "again", "--", "touch", "/tmp/go")
    until(lambda: restarts(kubectl, "again") == 1)
    assert kubectl("logs", "again", "-p") == "first words\nlast words\n"
    until(lambda: kubectl("logs", "again") == "first words\n")
    kubectl("delete", "pod", "again", "--now")


def restarts(kubectl: Kubectl, pod: str) -> int:
    """How often the pod's first container was started again and runs now."""
    status = json.loads(kubectl("get", "pod", pod, "-o", "json"))["status"]["containerStatuses"][0]
    return int(status["restartCount"]) if "running" in status["state"] else -1


# Commands.


def test_input_comes_back_as_it_was(kubectl: Kubectl) -> None:
    done = pipe(kubectl, "exec", "-i", "echo-node1-1", "--", "cat", data=BLOB)
    assert (done.returncode, done.stdout == BLOB) == (0, True)


def test_how_commands_end(kubectl: Kubectl) -> None:
    for code in (0, 1, 42, 255):
        assert pipe(kubectl, "exec", "echo-node1-1", "--", "sh", "-c", f"exit {code}").returncode == code
    both = pipe(kubectl, "exec", "echo-node1-1", "--", "sh", "-c", "echo out; echo err >&2; kill -9 $$")
    assert (both.returncode, both.stdout) == (137, b"out\n")
    assert both.stderr == b"err\ncommand terminated with exit code 137\n"
    started = "error: Internal error occurred: error executing command in container"  # what kubectl says with containerd
    assert f"{started}: nosuch: no such command" in kubectl("exec", "echo-node1-1", "--", "nosuch", code=1)
    assert "it is no program" in kubectl("exec", "echo-node1-1", "--", "/etc/hosts", code=1)
    assert 'pods "nope" not found' in kubectl("exec", "nope", "--", "id", code=1)


def test_commands_in_containers_that_do_not_run(kubectl: Kubectl, says: str, core: kubernetes.client.CoreV1Api) -> None:
    assert "container never of pod says does not run now" in kubectl("exec", says, "-c", "never", "--", "id", code=1)
    with pytest.raises(kubernetes.client.ApiException, match="Handshake status 400"):
        stream(core.connect_get_namespaced_pod_exec, says, "default", command=["id"], stdout=True)


class Terminal:
    """kubectl with a terminal of 100 columns and 30 rows."""

    def __init__(self, kubectl: Kubectl, *words: str) -> None:
        self.fd, far = pty.openpty()
        termios.tcsetwinsize(self.fd, (30, 100))
        self.process = subprocess.Popen(
            [kubectl.path, *words], env=kubectl.environment, stdin=far, stdout=far, stderr=far, start_new_session=True
        )
        os.close(far)
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until this is seen."""
        end = time.monotonic() + 20
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < end, f"{pattern!r} is not seen in {self.seen!r}"
            if select.select([self.fd], [], [], 0.5)[0]:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found

    def end(self) -> int:
        """Wait for the end: kubectl's exit status."""
        try:
            with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                while os.read(self.fd, 65536):
                    pass
            return self.process.wait(20)
        finally:
            self.process.kill()
            os.close(self.fd)


def test_a_terminal_and_its_size(kubectl: Kubectl) -> None:
    shell = Terminal(kubectl, "exec", "-it", "echo-node1-1", "--", "sh")
    shell.expect("[#$] ")
    shell.type("test -t 0 && echo it-is-$((1+1))\n")
    shell.expect("it-is-2\r\n")
    shell.type("tty\n")
    shell.expect("/dev/pts/[0-9]+\r\n")
    shell.type("until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; echo size-$((1+2))\n")
    shell.expect("size-3")
    termios.tcsetwinsize(shell.fd, (40, 120))
    os.kill(shell.process.pid, 28)  # SIGWINCH: a terminal tells it to its foreground only
    shell.type("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.05; done; echo size-$((1+3))\n")
    shell.expect("size-4")
    # In a child that execs: dash itself loses a SIGINT that comes between its vfork and the exec.
    shell.type("sh -c 'echo $((5+5)); exec sleep 1000'\n")
    shell.expect("10\r\n")
    shell.type("\x03")
    shell.type("exit 5\n")
    assert shell.end() == 5


def test_the_python_client_talks_to_a_command(core: kubernetes.client.CoreV1Api) -> None:
    words = {"command": ["sh", "-c", "read line; echo got $line; echo bad >&2; exit 6"], "_preload_content": False}
    talk = stream(
        core.connect_get_namespaced_pod_exec, "echo-node1-1", "default", stdin=True, stdout=True, stderr=True, **words
    )
    talk.write_stdin("this\n")
    talk.run_forever(timeout=20)
    assert (talk.read_stdout(), talk.read_stderr(), talk.returncode) == ("got this\n", "bad\n", 6)


# The main process.


def test_attach_to_what_a_container_says_and_hears(kubectl: Kubectl, core: kubernetes.client.CoreV1Api) -> None:
    kubectl("apply", "-f", "-", stdin=HEARS)
    kubectl("wait", "--for=condition=Ready", "pod/hears", "--timeout=20s")
    talk = stream(core.connect_get_namespaced_pod_attach, "hears", "default", stdin=True, stdout=True, _preload_content=False)
    talk.write_stdin("one\n")
    assert talk.readline_stdout(timeout=20) == "got one"
    terminal = Terminal(kubectl, "attach", "-i", "hears")
    terminal.type("two\n")
    terminal.expect("got two")
    assert talk.readline_stdout(timeout=20) == "got two"
    talk.close()
    kubectl("delete", "pod", "hears", "--now")
    terminal.end()


def test_run_and_remove(kubectl: Kubectl) -> None:
    words = ("run", "brief", "--rm", "-i", "--restart=Never", "--image=podplane/client", "--quiet", "--")
    done = pipe(kubectl, *words, "sh", "-c", "cat; exit 7", data=b"over and out\n")
    assert (done.returncode, done.stdout) == (7, b"over and out\n")
    assert "not found" in kubectl("get", "pod", "brief", code=1)


def test_a_container_with_a_terminal_waits_without_input_and_is_attached_to(kubectl: Kubectl) -> None:
    shell = Terminal(kubectl, "run", "typed", "--rm", "-it", "--restart=Never", "--image=podplane/client", "--", "sh")
    shell.expect("try pressing enter")  # the prompt came before somebody listened
    shell.type("\n")
    shell.expect("[#$] ")
    shell.type("tty; stty size\n")
    shell.expect("/dev/pts/0\r\n30 100\r\n")
    other = Terminal(kubectl, "debug", "typed", "-it", "--image=podplane/client", "-c", "beside", "--target=typed", "--", "sh")
    other.expect("try pressing enter")
    other.type("\n")
    other.expect("[#$] ")
    other.type("tty; cat /proc/1/comm\n")
    other.expect("/dev/pts/0\r\nsh\r\n")
    other.type("exit\n")
    other.end()
    shell.type("exit 3\n")
    assert shell.end() == 3
    kubectl("apply", "-f", "-", stdin=WAITS)
    kubectl("wait", "--for=condition=Ready", "pod/waits", "--timeout=20s")
    assert kubectl("exec", "waits", "--", "readlink", "/proc/1/fd/0").strip() == "/dev/pts/0"
    kubectl("delete", "pod", "waits", "--now")


# Ports.


@contextlib.contextmanager
def forwarded(kubectl: Kubectl, target: str, port: int) -> Iterator[int]:
    """`kubectl port-forward` to a port: the local one."""
    with subprocess.Popen(
        [kubectl.path, "port-forward", target, f":{port}"],
        env=kubectl.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as forwarder:
        try:
            assert forwarder.stdout
            line = forwarder.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
            assert found, line
            yield int(found[1])
        finally:
            forwarder.terminate()


def fetch(port: int, path: str, body: bytes | None = None) -> bytes:
    """An answer over HTTP."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=body, timeout=20) as answer:
        found: bytes = answer.read()
        return found


def test_ports_of_pods_deployments_and_services(kubectl: Kubectl, web: str) -> None:
    pods = kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert len(pods) == 2
    with forwarded(kubectl, f"pod/{pods[1]}", 8080) as port:
        assert fetch(port, "/hostname").decode() == pods[1]
    for target, number in ((f"deployment/{web}", 8080), (f"service/{web}", 80)):
        with forwarded(kubectl, target, number) as port:
            assert fetch(port, "/hostname").decode() in pods


PAGE = """
import http.server, ssl, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])) + repr(self.headers.get("authorization")).encode()
        self.answer("text/plain", self.path.encode() + b" " + body)
    def do_GET(self):
        self.answer("text/html", b'<a href="/next">')
    def answer(self, kind, body):
        self.send_response(200)
        for header in (("content-type", kind), ("content-length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Page)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[2:])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_what_pods_and_services_serve_is_had_through_the_api(
    kubectl: Kubectl, core: kubernetes.client.CoreV1Api, web: str
) -> None:
    pods = kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}").split()
    place = "/api/v1/namespaces/default"
    assert [kubectl("get", "--raw", f"{place}/pods/{pod}:8080/proxy/hostname") for pod in pods] == pods
    found = {kubectl("get", "--raw", f"{place}/services/{web}:80/proxy/hostname") for _ in range(30)}
    assert found == set(pods)
    assert kubectl("get", "--raw", f"{place}/pods/{pods[0]}:8080/proxy/echo?msg=a%20b") == "a b"
    assert core.connect_get_namespaced_pod_proxy_with_path(f"{pods[0]}:8080", "default", "hostname") == pods[0]
    refused = kubectl("get", "--raw", f"{place}/pods/{pods[0]}:9999/proxy/", code=1)
    assert refused.endswith(":9999: connect: connection refused\n")


def test_a_page_over_https_keeps_its_reader_below_the_api(kubectl: Kubectl, lab: Podplane) -> None:
    files = [f"--from-file=tls.{kind}={next(lab.folder.path.rglob(f'apiserver.{kind}'))}" for kind in ("crt", "key")]
    kubectl("create", "configmap", "page", f"--from-literal=page.py={PAGE}", *files)
    script = "python3 /page/page.py 80 & exec python3 /page/page.py 443 /page/tls.crt /page/tls.key"
    container = {"name": "main", "image": "host/sh", "command": ["sh", "-c", script]}
    ready = {"tcpSocket": {"port": 443}, "periodSeconds": 1}
    mounts = [{"name": "page", "mountPath": "/page"}]
    spec = {"containers": [{**container, "readinessProbe": ready, "volumeMounts": mounts}], "terminationGracePeriodSeconds": 1}
    spec["volumes"] = [{"name": "page", "configMap": {"name": "page"}}]
    kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "page"}, "spec": spec})
    )
    kubectl("wait", "--for=condition=Ready", "pod/page", "--timeout=30s")
    place = "/api/v1/namespaces/default/pods"
    for name in ("page", "https:page:443"):
        assert kubectl("get", "--raw", f"{place}/{name}/proxy/") == f'<a href="{place}/{name}/proxy/next">'
        said = kubectl("create", "--raw", f"{place}/{name}/proxy/a?b=c", "-f", "-", stdin="words")
        assert said == "/a?b=c wordsNone", "and the server never sees the token of the user"


def test_many_connections_at_once(kubectl: Kubectl, web: str) -> None:
    answers: list[bytes] = []
    with forwarded(kubectl, f"deployment/{web}", 8080) as port:
        asking = [threading.Thread(target=lambda i=i: answers.append(fetch(port, f"/echo?msg={i}"))) for i in range(20)]
        for one in asking:
            one.start()
        for one in asking:
            one.join(30)
    assert sorted(map(int, answers)) == list(range(20))


LARGE = 20 * 2**20
SERVER = f"""
import http.server, os
class Blob(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "{LARGE}")
        self.end_headers()
        self.wfile.write(bytes(range(256)) * {LARGE // 256})
http.server.HTTPServer(("127.0.0.1", 9000), Blob).serve_forever()
"""


@pytest.fixture(scope="module")
def blob(kubectl: Kubectl) -> str:
    """A pod that serves 20 MiB on its localhost."""
    kubectl("run", "blob", "--image=host/python3", "--grace-period=1", "--command", "--", "python3", "-c", SERVER)
    kubectl("wait", "--for=condition=Ready", "pod/blob", "--timeout=20s")
    until(lambda: pipe(kubectl, "exec", "blob", "--", "python3", "-c", CONNECTS).returncode == 0)
    return "blob"


CONNECTS = "import socket; socket.create_connection(('127.0.0.1', 9000), 1)"


def test_a_large_transfer(kubectl: Kubectl, blob: str) -> None:
    with forwarded(kubectl, f"pod/{blob}", 9000) as port:
        found = hashlib.sha256(fetch(port, "/")).hexdigest()
    assert found == hashlib.sha256(bytes(range(256)) * (LARGE // 256)).hexdigest()


def test_a_large_transfer_to_the_python_client(core: kubernetes.client.CoreV1Api, blob: str) -> None:
    forward = portforward(core.connect_get_namespaced_pod_portforward, blob, "default", ports="9000")
    sock = forward.socket(9000)
    sock.settimeout(20)
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    size = 0
    while data := sock.recv(1 << 20):
        size += len(data)
    assert size > LARGE
    assert forward.error(9000) is None


def test_a_port_where_nobody_listens(kubectl: Kubectl, core: kubernetes.client.CoreV1Api, web: str) -> None:
    with forwarded(kubectl, f"deployment/{web}", 4) as port, pytest.raises((OSError, urllib.error.URLError)):
        fetch(port, "/")
    pod = core.list_namespaced_pod("default", label_selector="app=web").items[0].metadata.name
    forward = portforward(core.connect_get_namespaced_pod_portforward, pod, "default", ports="4")
    with contextlib.suppress(OSError):
        forward.socket(4).recv(1)
    until(lambda: forward.error(4))
    assert "refused" in forward.error(4)


# Files.


def test_files_and_folders_are_copied_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "blob").write_bytes(BLOB)
    (folder / "a name with spaces").write_text("text\n")
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    kubectl("cp", str(folder), "echo-node1-1:/tmp/copy")
    assert kubectl("exec", "echo-node1-1", "--", "cat", "/tmp/copy/a name with spaces") == "text\n"
    kubectl("exec", "echo-node1-1", "--", "test", "-x", "/tmp/copy/tool")
    done = pipe(kubectl, "cp", "echo-node1-1:/tmp/copy", str(tmp_path / "back"))
    assert done.returncode == 0
    assert (tmp_path / "back" / "deep" / "er" / "blob").read_bytes() == BLOB
    assert (tmp_path / "back" / "a name with spaces").read_text() == "text\n"
    pipe(kubectl, "cp", "echo-node1-1:/tmp/copy/tool", str(tmp_path / "one"))
    assert (tmp_path / "one").read_text() == "#!/bin/sh\n"


# Looking in.


def test_a_container_is_added_to_a_pod_to_look_into_it(kubectl: Kubectl) -> None:
    kubectl("run", "seen", "--image=podplane/echo", "--port=8080")
    kubectl("wait", "--for=condition=Ready", "pod/seen", "--timeout=20s")
    address = kubectl("get", "pod", "seen", "-o", "jsonpath={.status.podIP}")
    shell = Terminal(kubectl, "debug", "-it", "pod/seen", "--image=podplane/client", "-c", "look", "--", "sh")
    shell.expect("try pressing enter")
    shell.type("\n")
    shell.expect("[#$] ")
    shell.type("ip -br address show eth0; exit\n")
    shell.expect(re.escape(address))
    assert shell.end() == 0
    status = json.loads(kubectl("get", "pod", "seen", "-o", "json"))["status"]
    assert status["ephemeralContainerStatuses"][0]["name"] == "look"
    assert address in kubectl("logs", "seen", "-c", "look")
    again = pipe(kubectl, "debug", "pod/seen", "--image=podplane/client", "-c", "stays")
    assert again.returncode == 0
    running = "jsonpath={.status.ephemeralContainerStatuses[1].state.running.startedAt}"
    kubectl("wait", f"--for={running}", "pod/seen", "--timeout=20s")
    assert address in kubectl("exec", "seen", "-c", "stays", "--", "ip", "address")
    assert status["containerStatuses"][0]["restartCount"] == 0
    assert "ephemeral-containers" in kubectl("describe", "pod", "seen").lower().replace(" ", "-")
    kubectl("delete", "pod", "seen", "--now")


def test_a_copy_of_a_pod_and_a_pod_on_a_node_to_look_with(kubectl: Kubectl) -> None:
    pipe(kubectl, "debug", "pod/echo-node1-1", "--copy-to=copied", "--image=podplane/client", "-c", "look")
    kubectl("wait", "--for=condition=Ready", "pod/copied", "--timeout=20s")
    assert kubectl("get", "pod", "copied", "-o", "jsonpath={.spec.containers[*].name}").split()[-1] == "look"
    made = pipe(kubectl, "debug", "node/node2", "--image=podplane/client", "--", "sh", "-c", "hostname; chroot /host hostname")
    assert made.returncode == 0
    pod = next(name for name in kubectl("get", "pods", "-o", "name").split() if "node-debugger-node2" in name)
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", pod, "--timeout=20s")
    assert kubectl("logs", pod) == "node2\nnode2\n"
    kubectl("delete", pod, "pod/copied", "--now")


def test_the_official_client_watches_a_pod_and_reads_what_it_says(core: kubernetes.client.CoreV1Api) -> None:
    container = {"name": "main", "image": "host/sh", "command": ["sh", "-c", "echo done"]}
    body = {"metadata": {"name": "watched"}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    core.create_namespaced_pod("default", body)
    phases = []
    watch = kubernetes.watch.Watch()
    events = watch.stream(core.list_namespaced_pod, "default", field_selector="metadata.name=watched", timeout_seconds=20)
    for event in events:
        phases.append(event["object"].status.phase)
        if phases[-1] == "Succeeded":
            watch.stop()
    assert [phase for phase, _ in itertools.groupby(phases)][-1] == "Succeeded"
    lines = kubernetes.watch.Watch().stream(core.read_namespaced_pod_log, "watched", "default")
    assert list(lines) == ["done"]
    core.delete_namespaced_pod("watched", "default", grace_period_seconds=0)


def test_there_are_no_metrics_and_that_is_said(kubectl: Kubectl) -> None:
    for what in ("pods", "nodes"):
        assert kubectl("top", what, code=1).strip() == "error: Metrics API not available"
