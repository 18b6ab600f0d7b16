"""Load between pods of a cluster as long as something else happens (`load`), and what became of it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tests.cluster import load
from tests.cluster.podplane import PORT, Installed

ECHO = 9000
RATES = (111.0, 100.0, 333.0)
"""A second: pings to each of three pods, messages of each standing connection, requests; of each of three pods."""


def begin(cluster: Installed, node: str) -> None:
    """A server and a client on a node."""
    cluster.run(f"back-{node}", node, "serve", str(PORT), labels={"role": "back"})
    cluster.run(f"front-{node}", node, "pause")


def service(**more: Any) -> dict[str, Any]:
    """Of all servers."""
    ports = [{"name": "http", "port": 80, "targetPort": PORT}, {"name": "echo", "port": ECHO}]
    spec = {"selector": {"role": "back"}, "ports": ports, **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "backs"}, "spec": spec}


@contextlib.contextmanager
def under_load(cluster: Installed, nodes: Sequence[str], *services: str) -> Iterator[dict[str, Any]]:
    """Load between pods of these nodes, and to these addresses of the Service, as long as this is entered; what became of it is
    known then, by node."""
    script, ips = load.__file__, [ip for node in nodes for ip in cluster.ips(f"back-{node}")]
    started = [cluster.in_pod(node, f"back-{node}", sys.executable, script, "serve", str(ECHO)) for node in nodes]
    streams = [(ip, ECHO) for ip in (*ips, *services)]
    what = json.dumps({"pings": ips, "streams": streams, "services": [(one, 80) for one in services], "rates": RATES})
    found: dict[str, Any] = {}
    try:
        for one in started:
            assert one.stdout is not None and one.stdout.readline() == "\n"
        asking = {node: cluster.in_pod(node, f"front-{node}", sys.executable, script, "ask", what) for node in nodes}
        started += asking.values()
        for one in asking.values():
            assert one.stdout is not None and one.stdout.readline() == "\n"
        yield found
        for one in asking.values():
            assert one.stdin is not None
            one.stdin.close()
            one.stdin = None
        found |= {node: json.loads(one.communicate(timeout=50)[0]) for node, one in asking.items()}
    finally:
        for one in started:
            if one.stdin is not None:
                one.communicate(timeout=50)


def check_load(found: dict[str, Any]) -> None:
    """Nothing was lost, of enough to say so."""
    print(json.dumps(found))
    for node, one in found.items():
        assert one["wrong"] == [], node
        assert min(one[kind] for kind in ("ping", "stream", "request")) > 300, (node, one)
