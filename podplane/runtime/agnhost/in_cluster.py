"""`agnhost inclusterclient` and `nettest`: programs that ask the API server with the token of their ServiceAccount."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podplane.runtime.agnhost.common import KILLED_BY_TERM, CannotServe, Context, klog, opened, prepared
from podplane.runtime.agnhost.flags import UsageError, Value
from podplane.runtime.agnhost.reasons import reason
from podplane.runtime.agnhost.web import ask
from podplane.runtime.http_server import Response, as_json
from podplane.runtime.serving import Exchange, Http

if TYPE_CHECKING:
    from podplane.kubeapi.access import Access

CLIENT_FLAGS: Mapping[str, Value] = {"poll-interval": 30}
NETTEST_FLAGS: Mapping[str, Value] = {
    "port": 8080,
    "peers": 8,
    "service": "nettest",
    "namespace": "default",
    "delay-shutdown": 0,
}
SECONDS = 10.0
ROUNDS = 15
"""How often all peers are asked: endpoints may come late."""
PAUSE_SECONDS, PATIENCE_SECONDS = 5.0, 300.0
MAX_LINES = 500


def access(context: Context) -> Access:
    """The way to the API. CannotServe when this is no pod with a ServiceAccount."""
    from podplane.kubeapi.access import AccessError, in_cluster  # brings ssl

    try:
        return in_cluster(environment=context.environment)
    except AccessError as error:
        raise CannotServe(f"err: {error}") from None


def call(way: Access, path: str) -> tuple[int, bytes]:
    """GET of the API; its status and body. OSError when there is none."""
    import http.client

    from podplane.kubeapi.access import AccessError

    try:
        connection = http.client.HTTPSConnection(way.host, way.port, timeout=SECONDS, context=way.context())
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {way.bearer()}", "Accept": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
    except (http.client.HTTPException, AccessError) as error:
        raise OSError(str(error) or type(error).__name__) from None


def run_client(context: Context) -> int:
    """Ask /healthz again and again, and log a hash of the token that was sent: by it tests see that tokens are renewed."""
    interval = context.flags.number("poll-interval")
    if interval <= 0:
        raise UsageError(f"--poll-interval {interval}: give 1 or more")
    way = access(context)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(KILLED_BY_TERM))
    klog("started")
    context.ready()
    while True:
        time.sleep(interval)
        _poll(way)


def _poll(way: Access) -> None:
    klog("calling /healthz")
    try:
        klog(f"authz_header={token_hash(way.bearer())}")
        status, body = call(way, "/healthz")
        failed = f"{status}\n{body.decode(errors='replace')}" if status != 200 else ""
    except Exception as error:
        failed = str(error)
    if failed:
        klog("status=failed", "E")
        klog(f"error checking /healthz: {failed}", "E")


def token_hash(token: str) -> str:
    """What tells tokens apart without telling them."""
    import base64
    import hashlib

    digest = hashlib.sha256(f"salt|Bearer {token}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(slots=True)
class Peers:
    """Who was reached, and who reached us; `/read` shows it."""

    hostname: str
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    still_contacting: bool = True

    def note(self, line: str) -> None:
        """A line of the log; the oldest give way."""
        self.lines = [*self.lines, line][-MAX_LINES:]

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "Hostname": self.hostname,
            "Sent": self.sent or None,
            "Received": self.received or None,
            "Errors": self.errors or None,
            "Log": self.lines or None,
            "StillContactingPeers": self.still_contacting,
        }

    def status(self, wanted: int) -> str:
        """pass, running or fail."""
        if len(self.sent) >= wanted and len(self.received) >= wanted:
            return "pass"
        return "running" if self.still_contacting else "fail"

    def heard(self, body: bytes) -> bytes:
        """A peer says who it is; the answer says who this is."""
        try:
            source = json.loads(body).get("Source", "")
        except (ValueError, AttributeError) as error:
            source = ""
            self.errors = [*self.errors, str(error)][-MAX_LINES:]
        if isinstance(source, str) and source:
            self.received[source] = self.received.get(source, 0) + 1
        else:
            self.errors = [*self.errors, f"{self.hostname}: Got request with no source"][-MAX_LINES:]
        return as_json({"Hostname": self.hostname}) + b"\n"


def run_nettest(context: Context) -> int:
    """Serve, and reach every endpoint of a Service in a thread."""
    import threading  # only here

    flags = context.flags
    if not flags.text("service"):
        raise UsageError("Must provide -service flag.")
    way, peers = access(context), Peers(socket.gethostname())
    loop, servers = prepared()
    if (delay := flags.number("delay-shutdown")) > 0:
        loop.on_signal(signal.SIGTERM, lambda: loop.after(delay, lambda: loop.stop(0)))

    def handle(exchange: Exchange) -> Response | None:
        path = exchange.request.path
        if path == "/quit":
            loop.stop(0)
            return Response()
        if path == "/read":
            return Response(json.dumps(peers.document(), indent="\t").encode())
        if path == "/write":
            return Response(peers.heard(exchange.request.body))
        if path == "/status":
            return Response(peers.status(flags.number("peers")).encode())
        return Response(b"404 page not found\n", 404)

    servers.add(opened(socket.SOCK_STREAM, flags.number("port")), lambda: Http(handle, servers))
    place = f"/api/v1/namespaces/{flags.text('namespace')}/endpoints/{flags.text('service')}"
    threading.Thread(target=contact, args=(way, place, flags.number("peers"), peers), daemon=True).start()
    context.ready()
    return loop.run()


def contact(way: Access, place: str, wanted: int, peers: Peers) -> None:
    """Wait for as many endpoints as are wanted, then greet all of them, several times."""
    pause, end = max(PAUSE_SECONDS, wanted // 10), time.monotonic() + max(PATIENCE_SECONDS, wanted)
    while len(found := endpoints(way, place, peers)) < wanted and time.monotonic() < end:
        peers.note(f"{place} has {len(found)} endpoints, which is less than {wanted} as expected.")
        time.sleep(pause)
    for _ in range(ROUNDS):
        for url in endpoints(way, place, peers):
            greet(url, peers)
        time.sleep(pause)
    peers.still_contacting = False


def endpoints(way: Access, place: str, peers: Peers) -> list[str]:
    """The URLs of a Service's endpoints."""
    try:
        status, body = call(way, place)
        if status != 200:
            raise OSError(f"{status} {body.decode(errors='replace')}")
        subsets = json.loads(body).get("subsets") or []
    except (OSError, ValueError) as error:
        peers.note(f"Unable to read the endpoints {place}: {error}.")
        return []
    return [
        f"http://[{a['ip']}]:{p['port']}" if ":" in a["ip"] else f"http://{a['ip']}:{p['port']}"
        for subset in subsets
        for a in subset.get("addresses") or []
        for p in subset.get("ports") or []
    ]


def greet(url: str, peers: Peers) -> None:
    """Say who this is to one peer."""
    peers.note(f"Attempting to contact {url}")
    try:
        _, body = ask(f"{url}/write", method="POST", body=as_json({"Dest": url, "Source": peers.hostname}))
        name = str(json.loads(body)["Hostname"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        peers.note(f"Warning: unable to contact the endpoint {url}: {reason(error) if isinstance(error, OSError) else error}")
        return
    peers.sent[name] = peers.sent.get(name, 0) + 1
