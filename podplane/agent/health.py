"""What a node answers over HTTP, in its own network: to load balancers without a question, to others after asking who they are.

    :<agent_port>                  10256, and another one beside kube-proxy, which has that
    :10256/healthz                 is the node's network kept current, and is it a node for new connections? (KEP-3836)
    :10256/livez                   the first half of that
    :10256/readyz                  can pods be attached, and reach those of any other node, and is the machine fit for that?
    :10256/…                       what `reports` has, for those who may read it
    localhost:10249/proxyMode      how Services are served, as kube-proxy answers who looks for it
    :<healthCheckNodePort>         has this Service ready endpoints here? Asked by load balancers (externalTrafficPolicy Local)

A port that is in use is tried again, and an event says so once. Source: k8s.io/kubernetes, pkg/proxy/healthcheck.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
from collections.abc import Callable

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.keys import NodeKey, PeerKey, ServiceKey
from podplane.agent.planner import RecordEvent
from podplane.agent.reports import Reports
from podplane.kernel.namespace import Namespace
from podplane.model.config import AGENT_PORT, STATUS_PORT
from podplane.model.service import LOCAL, Service
from podplane.servers.http import Call, Handler, HttpServer, Reply, listeners
from podplane.services.announce import ready_here
from podplane.services.resolve import is_served

MAX_BEHIND_SECONDS, RETRY_SECONDS = 120.0, 5.0
"""When changes wait longer than this to be planned, the node is unhealthy; from one try to open a port in use to the next."""
DELETION_TAINT = "ToBeDeletedByClusterAutoscaler"


class NodeHealth(msgspec.Struct, eq=False):
    """The servers of one node; its methods run on one event loop."""

    agent: Agent
    reports: Reports
    namespace: Namespace
    now: Callable[[], datetime.datetime]
    record_event: RecordEvent
    machine_unready: Callable[[], str] = str
    """Why the machine is not fit for the node; "" when it is."""
    _ports: dict[int, str] = msgspec.field(default_factory=dict)
    _servers: dict[int, HttpServer] = msgspec.field(default_factory=dict)
    _wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """A Service came, changed or went."""
        if not self.agent.serves:
            return
        for service in (old, new):
            if service is not None and (port := health_port(service)):
                self._ports.pop(port, None)
        if new is not None and (port := health_port(new)):
            self._ports[port] = new.metadata.path
        if self._ports.keys() != self._servers.keys() - self._own_ports().keys():
            self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                self._wake.clear()
                all_there = await self._serve_all()
                try:
                    async with asyncio.timeout(None if all_there else RETRY_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for server in self._servers.values():
                server.close()
            self._servers = {}

    async def _serve_all(self) -> bool:
        """Open what is missing, close what is not wanted any more; False when a port can't be had."""
        own = self._own_ports()
        for port in self._servers.keys() - self._ports.keys() - own.keys():
            self._servers.pop(port).close()
        done = [await self._serve(port) for port in (*own, *self._ports) if port not in self._servers]
        return all(done)

    def _own_ports(self) -> dict[int, Handler]:
        """The node's own: kube-proxy's are among them where it is the agent that serves Services."""
        own: dict[int, Handler] = {self.agent.config.agent_port: self._about_node}
        return {**own, AGENT_PORT: self._about_node, STATUS_PORT: _about_proxy} if self.agent.serves else own

    async def _serve(self, port: int) -> bool:
        handler = self._own_ports().get(port) or functools.partial(self._about_service, port)
        try:
            sockets = self.namespace.run(listeners, port, self.agent.view.versions, port == STATUS_PORT)
        except OSError as error:
            path = self._ports.get(port)
            key = ServiceKey(path) if path else NodeKey(self.agent.view.node_name)
            why = os.strerror(error.errno) if error.errno else str(error)
            self.record_event(key, f"health checks can't be answered at port {port} of {self.agent.view.node_name}: {why}")
            return False
        self._servers[port] = server = HttpServer(handler)
        await server.listen(sockets)
        return True

    async def _about_service(self, port: int, call: Call) -> Reply:
        """As kube-proxy answers a load balancer."""
        service = self._ports.get(port, "")
        namespace, _, name = service.partition("/")
        count = ready_here(self.agent.view.slices_of(service), self.agent.view.node_name)
        body = {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": count,
            "serviceProxyHealthy": self._is_current(),
        }
        headers = (("x-load-balancing-endpoint-weight", str(count)),)
        return Reply(200 if count and self._is_current() else 503, msgspec.json.encode(body), headers=headers)

    async def _about_node(self, call: Call) -> Reply:
        match call.path.strip("/"):
            case "healthz":
                reply = self._health(self._is_current() and self._is_eligible())
            case "livez":
                reply = self._health(self._is_current())
            case "readyz":
                reply = ready(self._why_not_ready())
            case _:
                return await self.reports.answer(call)
        self.reports.count(call, reply)
        return reply

    def _health(self, healthy: bool) -> Reply:
        now = self.now()
        updated = now - datetime.timedelta(seconds=self.agent.seconds_since_reconcile)
        body = {"lastUpdated": updated, "currentTime": now, "nodeEligible": self._is_eligible()}
        return Reply(200 if healthy else 503, msgspec.json.encode(body))

    def _why_not_ready(self) -> str:
        """Why no pod can be attached here; "" when pods can."""
        if why := self.agent.view.why_no_pods or self.machine_unready():
            return why
        return self._why_no_routes() if self._is_current() else "changes wait to be planned"

    def _why_no_routes(self) -> str:
        """Why pods of no other node are reached; "" while some are, or there is no other node. One that is odd makes nobody unready."""
        planner, view = self.agent.planner, self.agent.view
        failed = [key for key in planner.failed if isinstance(key, PeerKey)]
        if not failed or len(failed) < sum(
            bool(one.spec.pod_cidrs) for name, one in view.nodes.items() if name != view.node_name
        ):
            return ""
        return f"no route to another node can be planned: {planner.blocked[failed[0]]}"

    def _is_current(self) -> bool:
        """Does no change wait for long?"""
        return not self.agent.is_behind or self.agent.seconds_since_reconcile < MAX_BEHIND_SECONDS

    def _is_eligible(self) -> bool:
        """May load balancers send new connections to this node?"""
        node = self.agent.view.registered
        return node is not None and node.metadata.deletion_timestamp is None and DELETION_TAINT not in node.spec.taint_keys


def ready(why_not: str) -> Reply:
    """The answer to /readyz."""
    return Reply(503 if why_not else 200, f"{why_not or 'ok'}\n".encode(), "text/plain; charset=utf-8")


async def _about_proxy(call: Call) -> Reply:
    """As kube-proxy's status server answers (pkg/proxy, serveMetrics), as far as tools ask it what a node does with Services."""
    answers = {"healthz": b"ok", "proxyMode": b"nftables"}
    found = answers.get(call.path.strip("/"))
    return Reply(404, b"404 page not found\n", "text/plain") if found is None else Reply(200, found, "text/plain")


def health_port(service: Service) -> int:
    """Where health checks of this Service are answered; 0 for nowhere. One that another proxy serves has its port answered by that."""
    spec = service.spec
    is_checked = is_served(service) and (spec.type, spec.external_traffic_policy) == ("LoadBalancer", LOCAL)
    return spec.health_check_node_port if is_checked else 0
