"""Name servers beside each other on the host's loopback, each on one core: podplane's own process, CoreDNS, and Unbound.

podplane's is started as a lab starts it: the same program, the same orders, a socket that is bound by who starts it. Each is a session of
its own, for Linux shares out CPUs among sessions first (sched(7), autogroups), and latencies on a busy machine would differ by that alone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.dns_objects import DOMAIN, written
from podplane.kubeapi.access import Access
from podplane.nameserver import control
from podplane.nameserver.keeper import spawn

LOCALHOST = "127.0.0.1"
SERVER_CPU, CLIENT_CPU = 0, 1
"""Positions among the CPUs that this process may use: servers keep to one, who asks to another."""
NETWORKS = ("10.0.0.0/8", "fd00:10::/32")
WAIT_SECONDS = 60.0
DNS_VERSION = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x0bdns-version\x07cluster\x05local\0\0\x10\0\x01"
"""A question that a server of the cluster's domain has an answer to, once it is ready."""


def cpu(which: int) -> int:
    """The number of one of them."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[which % len(cpus)]


def pin(pid: int, which: int) -> None:
    """Keep all threads of a process to a CPU."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {cpu(which)})


def free_port() -> int:
    """A port that nothing listens on, of UDP and TCP."""
    with socket.create_server((LOCALHOST, 0)) as one:
        port: int = one.getsockname()[1]
        return port


def memory(pid: int) -> float:
    """Resident memory, in MB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


class Server:
    """A server that runs: its process, its port, and the seconds from its start until it was ready."""

    def __init__(self, pid: int, port: int, seconds: float) -> None:
        self.pid, self.port, self.seconds = pid, port, seconds
        pin(pid, SERVER_CPU)


@contextlib.contextmanager
def ours(access: Access) -> Iterator[Server]:
    """podplane's own, by the API."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((LOCALHOST, 0))
        began = time.monotonic()
        process = spawn()
        try:
            begin = control.Begin(access, DOMAIN, networks=("127.0.0.0/8",), cluster=NETWORKS)
            control.send(process.connection, begin)
            control.send(process.connection, control.Open("node1", (control.UDP,)), bound.fileno())
            process.connection.settimeout(WAIT_SECONDS)
            if control.receive_news(process.connection) is None:
                raise RuntimeError("the name server ended")
            yield Server(process.pid, bound.getsockname()[1], time.monotonic() - began)
        finally:
            process.connection.close()
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


@contextlib.contextmanager
def coredns(access: Access, folder: Path, *plugins: str) -> Iterator[Server]:
    """CoreDNS with its kubernetes plugin and these lines more."""
    port = free_port()
    (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(access)))
    lines = [
        f".:{port} {{",
        f"bind {LOCALHOST}",
        f"kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{",
        f"kubeconfig {folder}/kubeconfig",
        "pods insecure\nfallthrough in-addr.arpa ip6.arpa\nttl 5\n}",
        *plugins,
        "}",
    ]
    corefile = folder / f"Corefile-{port}"
    corefile.write_text(written(lines))
    with _program(["coredns", "-conf", str(corefile)], port, {"GOMAXPROCS": "1"}) as server:
        yield server


def _kubeconfig(access: Access) -> dict[str, object]:
    ca = base64.b64encode(access.ca.encode()).decode()
    cluster = {"server": f"https://{access.address}", "certificate-authority-data": ca}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": access.bearer()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }


@contextlib.contextmanager
def unbound(folder: Path, lines: Iterable[str]) -> Iterator[Server]:
    """Unbound with one thread and these lines of its `server` section."""
    port = free_port()
    head = [
        "server:",
        f"interface: {LOCALHOST}@{port}",
        "num-threads: 1\ndo-daemonize: no\nuse-syslog: no\nlogfile: /dev/null\nverbosity: 0",
        f'chroot: ""\nusername: ""\ndirectory: "{folder}"\npidfile: ""\nmodule-config: "iterator"',
        f'local-data: "dns-version.{DOMAIN}. 5 TXT 1"',
    ]
    path = folder / f"unbound-{port}.conf"
    path.write_text(written([*head, *lines, "remote-control:", "control-enable: no"]))
    with _program(["unbound", "-d", "-c", str(path)], port, {}) as server:
        yield server


@contextlib.contextmanager
def _program(command: list[str], port: int, environment: dict[str, str]) -> Iterator[Server]:
    began = time.monotonic()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=quiet, stdout=quiet, stderr=quiet, env={**os.environ, **environment}, start_new_session=True
    )
    try:
        wait(port)
        yield Server(process.pid, port, time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait(port: int) -> None:
    """Until the cluster's domain is answered at this port. TimeoutError when it never is."""
    end = time.monotonic() + WAIT_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((LOCALHOST, port))
        asking.settimeout(0.05)
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                asking.send(DNS_VERSION)
                if asking.recv(512)[3] & 0xF == 0:
                    return
                time.sleep(0.02)
    raise TimeoutError(f"nothing answers at port {port}")


def missing() -> list[str]:
    """Programs to compare with that are not on the PATH."""
    return [one for one in ("dnsperf", "coredns", "unbound", "musl-gcc") if shutil.which(one) is None]
