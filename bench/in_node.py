"""A program of others in the network of a lab's node, with the right to do everything: root outside of the lab's user namespace."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.common import Lab

SLEEP = "86399.5"
"""What tells the process in the node's network from all others."""
KUBECONFIG = "KUBECONFIG"
"""In the words of a command: the file that leads to the lab's API from its nodes."""


@contextlib.contextmanager
def running(one: Lab, command: Sequence[str]) -> Iterator[None]:
    """On node1, until the block ends."""
    spec = {"nodeName": "node1", "hostNetwork": True, "enableServiceLinks": False}
    container = {"name": "main", "image": "host/sleep", "command": ["sleep", SLEEP]}
    one.api.create("pods", "default", {"metadata": {"name": "node"}, "spec": {**spec, "containers": [container]}})
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder, "kubeconfig")
        kubeconfig.write_text(_kubeconfig(one))
        words = [word.replace(KUBECONFIG, str(kubeconfig)) for word in command]
        words = ["nsenter", "--target", str(_process()), "--net", *words]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _process() -> int:
    """The process that sleeps in the node's network, by the number that it has here."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if entry.read_bytes() == f"sleep\0{SLEEP}\0".encode():
                    return int(entry.parent.name)
        time.sleep(0.1)
    raise RuntimeError("nothing runs in the node's network")


def _kubeconfig(one: Lab) -> str:
    """The lab's own, with the address at which its nodes reach the API."""
    return re.sub(r"https://127\.0\.0\.1:\d+", "https://192.168.1.1:6443", Path(one("kubeconfig").strip()).read_text())
