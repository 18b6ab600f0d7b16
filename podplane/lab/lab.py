"""A running lab: everything of it, wired together in one process and one event loop.

    fabric (underlay, outside, nodes)        namespaces and cables
    store ─ API server ─ HTTP on localhost   what users and agents talk to
    informers of nodes and pods              one cache for all agents of this process
    a node: agent + kubelet                  its network, its pods

The order of a start: the fabric, the API with its nodes, the agents' first reconcile, then pods. Whoever kills this process
kills all of it; a stop is nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
import time
from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from podplane import loop_turns, pauses
from podplane.agent.caches import Informers
from podplane.agent.feature import Kind
from podplane.agent.node import Concern, Started
from podplane.agent.object_events import ObjectEvents
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.poller import POLL_SECONDS, Poller
from podplane.apiserver import identity
from podplane.apiserver.admission import Admission
from podplane.apiserver.asgi import serve
from podplane.apiserver.audit import AuditLog
from podplane.apiserver.controllers.stored import StoredView
from podplane.apiserver.controllers.table import controllers
from podplane.apiserver.identity import Tokens, User
from podplane.apiserver.server import ApiServer, utc_now
from podplane.apiserver.store import Store, StoreError
from podplane.apiserver.unforeseen import Unforeseen
from podplane.cni.network import Network
from podplane.controllers.manager import Manager
from podplane.dns.node import SERVICE
from podplane.kernel import cgroups, ids, rootfs
from podplane.kernel.cgroups import Groups
from podplane.kernel.namespace import Namespace, Workers
from podplane.kernel.rootfs import Root
from podplane.kernel.zygote import Began
from podplane.kernel.zygote_processes import ZygoteProcesses
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError, Unwritable
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.informer import Informer
from podplane.kubeapi.messages import Handler
from podplane.kubeapi.supervise import Supervisor
from podplane.kubeapi.transport import HttpTransport
from podplane.lab import (
    control_plane,
    keys,
    kubeconfig,
    manifests,
    network_settings,
    node_report,
    outside_servers,
    preflight,
    registration,
    underlay,
)
from podplane.lab.agent_process import AgentProcess
from podplane.lab.agents import agent_settings
from podplane.lab.api_connection import ApiConnection
from podplane.lab.certificate_maker import Making
from podplane.lab.errors import LabError
from podplane.lab.fabric import Fabric, Machine
from podplane.lab.folder import Endpoint, Folder, hidden_folders
from podplane.lab.keys import TOKEN_BYTES
from podplane.lab.launch import Progress, Reporter
from podplane.lab.memory import Trimming, keep_large_blocks_apart
from podplane.lab.node import LabNode
from podplane.lab.node_dns import node_dns
from podplane.lab.outside import NoPodNetwork
from podplane.lab.power import Power
from podplane.lab.publish import Publisher
from podplane.lab.settling import create_pods, settle
from podplane.lab.spec import DEFAULT_PORT, PROCESSES, LabSpec
from podplane.lab.threads import started
from podplane.lab.underlay import Place
from podplane.model.config import UNDERLAY_MAC
from podplane.model.objects import Node
from podplane.model.phases import ENDED
from podplane.model.pod import Container, Pod
from podplane.model.service import Service
from podplane.nameserver.control import Begin
from podplane.nameserver.keeper import NameServer
from podplane.pods.bridge import gateway_of
from podplane.policy.index import Change
from podplane.runtime import image_files, limits, sandboxes, security
from podplane.runtime.kubelet import Kubelet, open_null
from podplane.runtime.node import PodSandbox
from podplane.runtime.pod import PodWorker
from podplane.runtime.program_names import ECHO_IMAGE, ZONE
from podplane.runtime.sandboxes import SandboxMaker
from podplane.runtime.streams import Streams

log = logging.getLogger(__name__)
NAMESPACE_WORKERS = 2
FOLDER_SECONDS = 2.0
"""Between two looks whether the lab's folder is still there."""
CACHE_TRIES, CACHE_SECONDS = 500, 0.01
"""So many looks whether a change of the API is in the caches, and so long between two."""
API_PORT = DEFAULT_PORT
"""On the underlay, where nobody else listens."""
MOST_AHEAD = 2000
"""What so many pods begin with is made before they are there, at most."""
START_POLL_SECONDS = 5.0
"""Between two looks of an agent at the kernel while the lab starts: nobody has touched it yet, and they take time of the start, the more
where it takes long, as audits come with them."""


class Lab:
    """One lab; `start`, then `run`."""

    def __init__(
        self,
        spec: LabSpec,
        folder: Folder,
        zygote: Began,
        listener: socket.socket,
        reporter: Reporter,
        unforeseen: Unforeseen,
        groups: Groups,
        making: Making,
    ) -> None:
        self.spec = spec
        self._groups, self._held = groups, cgroups.hold(one.folder for one in groups.hierarchies)
        self.plan = spec.plan()
        self._folder = folder
        self._listener = listener
        self._reporter = reporter
        self._unforeseen = unforeseen
        self._keys = keys.load(folder.pki)
        self._processes = ZygoteProcesses(zygote.connection, lambda: os._exit(1), zygote.pid)
        self._workers = Workers(NAMESPACE_WORKERS)
        self._sandboxes = SandboxMaker(self._processes, self._workers)
        made = making.wait()
        self._certificates, self._localhost = made.api, made.localhost
        self._null = open_null()
        self._allocatable = node_report.allocatable(node_report.capacity(folder.path))
        self._layers = "" if ids.of_pods().are_the_labs else str(folder.layers)
        self._hidden = hidden_folders(shows_home=spec.mount_home)
        self._dns = node_dns(tuple(map(str, control_plane.dns_ips(self.plan))), spec.cluster_domain)
        self._settings = agent_settings(self.plan, spec)
        self._peers, self._poller = PeerPlans(), Poller(START_POLL_SECONDS)
        self._kubelets: dict[str, Kubelet] = {}
        self._nodes: dict[str, LabNode] = {}
        self._clients: dict[str, Client] = {}
        """Of kubelets, by the names of their nodes."""
        self._nodes_begun = 0
        self._registered: dict[str, tuple[Mapping[str, Any], bool]] = {}
        """The nodes as they registered when the lab was started, and whether they are new."""
        self._supervisor: Supervisor
        self._registrations: set[asyncio.Task[None]] = set()

    async def start(self, pods_per_node: int) -> None:
        """Build everything and wait until all pods had their first start. LabError when it can't be."""
        asyncio.get_running_loop().add_reader(self._reporter.connection, self._abandoned)
        self._supervisor = Supervisor()
        self._reporter.step("network", total=self.spec.nodes)
        try:
            outside, *nodes = await asyncio.gather(*(self._sandboxes.make() for _ in range(1 + self.spec.nodes)))
            fabric = self._fabric = Fabric(
                self.plan,
                self._workers,
                outside.namespace,
                [node.namespace for node in nodes],
                asks=self.spec.agents == PROCESSES,
            )
        except OSError as error:
            raise LabError(sandboxes.no_namespace(error)) from None
        api = self._api(fabric.underlay.namespace)
        rootfs.prepare(str(self._folder.run))
        self._make_ahead(pods_per_node)
        self._serve, self._call, self._relieve = api.handle, api.call, api.relieve
        manager = self._manager(api)
        self._supervisor.add("API over HTTPS", lambda: self._serve_https(fabric.underlay))
        self._name_server = self._make_name_server()
        self._agents_call = self._agents_way()
        client = self._control = self._client(identity.component("podplane"), self._call)
        watcher = self._client(identity.component("podplane"), self._agents_call)
        with api.transaction():
            self._backend = await network_settings.ensure(client, self.spec.backend, self.spec.cross_subnet)
            await self._register_nodes(client)
        self._informers = Informers(watcher)
        self._caches = caches = self._informers.caches
        pods = self._pods = Informer(watcher, "pods", Pod)
        await self._informers.sync()
        self._record_event = ObjectEvents(Recorder(watcher, "podplane", utc_now), caches)
        self._publisher = Publisher(client, self._origin, caches.services.objects)
        image_files.prepare(self._folder.run, *self._localhost)
        self._reporter.step("nodes", total=self.spec.nodes)
        self._host_sandboxes: dict[str, PodSandbox] = {**dict(zip(fabric.nodes, nodes, strict=True)), underlay.OUTSIDE: outside}
        self._power = Power(
            self.plan,
            fabric,
            self._name_server,
            self._host_sandboxes,
            self._sandboxes.make,
            self._boot_node,
            self._begin_node,
        )
        for name, machine in fabric.nodes.items():
            self._make_node(name, machine, pods.objects, fabric)
        await self._start_nodes()
        self._start_outside(fabric.outside)
        caches.subscribe(self._changed)
        await pods.sync()
        self._reserve_addresses(pods, list(pods.objects.values()))
        pods.subscribe(self._pod_changed)
        for pod in list(pods.objects.values()):
            self._pod_changed(None, pod)
        for task, work in self._informers.watches.items():
            self._supervisor.add(task, work)
        self._supervisor.add("watch of pods", pods.run)
        self._supervisor.add("controllers", manager.run)
        self._supervisor.add("publisher", self._publisher.run)
        for name, node in self._nodes.items():
            self._supervisor.add(f"faults of {name}", node.faults.run)
        at_outside = self._processes, self._null, fabric.outside
        server = await outside_servers.serve(*at_outside, ECHO_IMAGE)
        self._supervisor.add("host outside", lambda: outside_servers.keep(server, *at_outside, ECHO_IMAGE))
        zone = (ZONE, *map(str, underlay.outside_ips(self.plan)))
        self._supervisor.add("name server outside", lambda: outside_servers.keep(None, *at_outside, *zone))
        with api.transaction():
            await create_pods(client, manifests.wanted_pods(self.spec.nodes, pods_per_node))
        await settle(self._kubelets, pods.objects, self.spec.nodes * pods_per_node, self._reporter)
        self._supervisor.add("name server", self._name_server.run)  # last: what is asked before waits in its sockets

    def _agents_way(self) -> Handler:
        """How agents and kubelets reach the API: as on a real cluster, or by direct calls, which is quicker."""
        if not self.spec.agents_over_https:
            return self._call
        host, port = self._listener.getsockname()
        return HttpTransport(Access(host, port, ca=self._certificates.authority))  # each client sends a token of its own

    async def _serve_https(self, underlay_machine: Machine) -> None:
        """Serve the API on the host's localhost, and on the underlay, where nodes and pods reach it."""
        gateways = [ip for subnet in range(self.plan.subnets) for ip in self.plan.underlay_gateways(subnet)]
        listeners = [underlay_machine.namespace.run(preflight.bind, str(ip), API_PORT) for ip in gateways]
        await serve(self._serve, [self._listener, *listeners], self._certificates.certificate, self._certificates.key)

    async def run(self) -> None:
        """Publish the address, tell `up`, and serve for ever."""
        host, port = self._listener.getsockname()
        endpoint = Endpoint(host, port, self._keys.admin, self._certificates.authority, time.time())
        kubeconfig.write(self._folder, endpoint)
        self._folder.publish(endpoint)
        asyncio.get_running_loop().remove_reader(self._reporter.connection)
        self._reporter.send(Progress(ready=True))
        self._reporter.connection.close()
        self._poller.seconds = POLL_SECONDS
        pauses.shorten()  # without a collection before: it would take half a second now, and find little
        self._sandboxes.keep_one_ahead()
        self._make_containers_ahead(1)
        self._supervisor.add("zygote", self._processes.keep_going)
        self._supervisor.add("folder", self._folder_stays)
        self._supervisor.add("memory", Trimming(self._relieve).run)
        await self._supervisor.run()

    async def _folder_stays(self) -> None:
        """End when the lab's folder is gone: no command finds the lab any more, and nothing of it would be there after a stop."""
        while True:
            await asyncio.sleep(FOLDER_SECONDS)
            if not self._folder.is_held():
                log.error("the folder of this lab is gone: %s", self._folder.path)
                os._exit(1)

    def _abandoned(self) -> None:
        """`up` ended before the lab was ready: end the lab too."""
        os._exit(1)

    def _api(self, gateway: Namespace) -> ApiServer:
        try:
            self._store = store = Store(self._folder.store)
        except StoreError as error:
            if error.is_passing:
                raise LabError(f"{error}, then `{self._folder.command('up')}`") from None
            raise LabError(f"{error}: `{self._folder.command('down')} --purge` deletes this lab's state") from None
        self._tokens = Tokens({self._keys.admin: identity.admin()}, self._keys.signing, store)
        is_first = not store.all("namespaces")
        admission = Admission(store, self.plan.cluster)
        streams, audit = Streams(self._worker, self._null, gateway), AuditLog(self._folder.audit)
        api = ApiServer(
            store,
            admission,
            self._tokens,
            streams=streams,
            audit=audit,
            errors=self._unforeseen,
            command=self._folder.command,
        )
        with api.transaction():
            api.bootstrap()
            for path, manifest in control_plane.bootstrap(self.plan, is_first=is_first):
                api.ensure(path, manifest)
        return api

    def _make_ahead(self, pods_per_node: int) -> None:
        """While nodes are set up, which takes one processor, the zygote makes what pods begin with."""
        kept = [one.object for one in self._store.all("pods")]
        own = {f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in kept if _has_namespaces(one)}
        names = (one["metadata"]["name"] for one in manifests.wanted_pods(self.spec.nodes, pods_per_node))
        count = min(len(own.union(f"default/{name}" for name in names)), MOST_AHEAD)
        self._sandboxes.make_ahead(count)
        if not self.spec.sandbox_only:
            self._make_containers_ahead(count)

    def _make_containers_ahead(self, count: int) -> None:
        size = limits.layer(Container(name=""))
        root = Root(str(self._folder.run), hidden=self._hidden, homes=self.spec.mount_home, size=size, layers=self._layers)
        self._processes.make_ahead(count, self._groups.common, root, security.usual())

    def _manager(self, api: ApiServer) -> Manager[StoredView]:
        """The controllers, each with an identity of its own."""
        view = StoredView(self._store, utc_now, node_grace=self.spec.node_monitor_grace_period)
        table = controllers(self._certificates.authority, {underlay.OUTSIDE}, control_plane.published(self.plan))
        clients = {c.name: self._client(identity.controller(c.name), self._call) for c in table}
        recorders = {name: (client, Recorder(client, name, utc_now)) for name, client in clients.items()}
        manager = Manager(table, view, recorders, api.transaction)
        api.observe(view.observe)
        api.observe(manager.observe)
        manager.begin()
        return manager

    def _client(self, user: User, handler: Handler) -> Client:
        """A client of the API for a part of the lab, with a token of its own; `handler` takes its requests."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._tokens.add(token, user)
        return Client(handler, token)

    # Nodes.

    async def _register_nodes(self, client: Client) -> None:
        for number in range(1, self.spec.nodes + 1):
            try:
                manifest = self._manifest(number)
                node, is_new = await registration.register(client, manifest)
                self._registered[manifest["metadata"]["name"]] = manifest, is_new
                await registration.offer_name_server(client, node)
            except ApiError as error:
                raise LabError(f"{manifests.node_name(number)} can't be registered: {error}") from None

    def _manifest(self, number: int) -> dict[str, Any]:
        now = utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
        place = self._fabric.places[manifests.node_name(number)]
        return control_plane.node(place, self._folder.path, now, self._backend, self.plan.second_ips(number))

    def _make_node(self, name: str, machine: Machine, pods: Mapping[str, Pod], fabric: Fabric) -> None:
        manifest, is_new = self._registered.pop(name)
        connection = ApiConnection(name, self._agents_call)
        client = self._client(identity.node(name), connection)
        self._nodes[name] = LabNode(
            name,
            machine,
            self._settings,
            self._peers,
            self._poller,
            connection,
            client,
            self._control,
            self._caches,
            pods,
            self._record_event,
            self._power,
            partial(fabric.remake_uplink, name),
            fabric.cable(name),
            registration.machine_status(manifest),
            self._name_server,
            process=self._agent_process(name, machine) if self.spec.agents == PROCESSES else None,
            is_new=is_new,
            beat_seconds=self.spec.beat_seconds,
        )
        self._clients[name] = client
        self._make_kubelet(self._nodes[name], self._caches.nodes.objects[name].internal_ips)

    def _make_kubelet(self, node: LabNode, ips: tuple[str, ...]) -> None:
        name = node.name
        made = self._kubelet(name, ips, node.machine.namespace, node.agent.network, self._clients[name])
        self._kubelets[name] = node.kubelet = made

    async def _boot_node(self, place: Place) -> Mapping[str, Any]:
        """Say to the API what the machine of a node is now, as its kubelet does when it starts; that part of the Node's status, once the
        caches have it."""
        manifest = self._manifest(place.number)
        node, _ = await registration.register(self._control, manifest)
        name = node["metadata"]["name"]
        for _ in range(CACHE_TRIES):
            if self._is_cached(name, place):
                break
            await asyncio.sleep(CACHE_SECONDS)
        return registration.machine_status(manifest)

    def _is_cached(self, name: str, place: Place) -> bool:
        node = self._caches.nodes.objects.get(name)
        mac = node.metadata.annotations.get(UNDERLAY_MAC) if node is not None else None
        return node is not None and (node.internal_ips, mac) == (tuple(map(str, place.ips)), place.mac)

    async def _begin_node(self, name: str, machine: Machine, status: Mapping[str, Any]) -> None:
        """Start agent and kubelet on a machine that has booted."""
        node = self._nodes[name]
        process = self._agent_process(name, machine) if self.spec.agents == PROCESSES else None
        node.set_up(machine, status, process, self._caches.nodes.objects[name])
        node.connect()
        self._make_kubelet(node, self._caches.nodes.objects[name].internal_ips)
        if refused := (await self._start_agent(name, node)).refused:
            log.warning("boot node=%s refused=%s", name, refused[0])
        self._reserve_addresses(self._pods, [pod for pod in self._pods.objects.values() if pod.spec.node_name == name])
        node.start_pods()

    def _agent_process(self, name: str, machine: Machine) -> AgentProcess:
        """An agent as a process, which reaches the API over the underlay with a token of its own."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._tokens.add(token, identity.agent())
        gateway = str(self.plan.underlay_gateways()[0])
        access = Access(gateway, API_PORT, token, self._certificates.authority)
        return AgentProcess(name, machine.namespace, self._folder.run / "agents" / name, self._settings, access)

    async def _start_nodes(self) -> None:
        """Agents within this process one after the other, and processes at the same time."""
        if self.spec.agents == PROCESSES:
            await asyncio.gather(*(self._start_node(name, node) for name, node in self._nodes.items()))
        else:
            for name, node in self._nodes.items():
                await self._start_node(name, node)

    async def _start_node(self, name: str, node: LabNode) -> None:
        started = await self._start_agent(name, node)
        if started.refused:
            raise LabError(f"{name} can't be set up: {started.refused[0]}")
        self._nodes_begun += 1
        self._reporter.step("nodes", self._nodes_begun, self.spec.nodes)

    async def _start_agent(self, name: str, node: LabNode) -> Started:
        started = await node.agent.start()
        registered = self._caches.nodes.objects[name]
        bridge_ips = [str(gateway_of(ipaddress.ip_network(block))) for block in registered.spec.pod_cidrs]
        self._name_server.add(name, node.machine.namespace, (*self._settings.dns.ips, *bridge_ips), registered.internal_ips)
        node.run()
        return started

    def _make_name_server(self) -> NameServer:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._tokens.add(token, identity.component("name-server"))
        host, port = self._listener.getsockname()
        networks = (*self.plan.cluster, *self.plan.node, *control_plane.dns_ips(self.plan))
        clients, own = (tuple(map(str, cidrs)) for cidrs in (networks, (*self.plan.cluster, *self.plan.service)))
        ca, domain, ips = self._certificates.authority, self.spec.cluster_domain, self._settings.dns.ips
        begin = Begin(Access(host, port, token, ca), domain, clients, own, ips=ips, machine=self._dns.machine)
        inside = (*self.plan.cluster, *self.plan.node, *self.plan.second, *self.plan.service, *self.plan.outside)
        is_asked = self.spec.agents == PROCESSES
        return NameServer(begin, self._name_server_changed, tuple(map(str, inside)), is_asked)

    def _name_server_changed(self, node: str, answers: bool) -> None:
        self._nodes[node].agent.name_server_changed(answers=answers)

    def _kubelet(self, name: str, ips: tuple[str, ...], namespace: Namespace, network: Network, client: Client) -> Kubelet:
        return Kubelet(
            name=name,
            host_ips=ips,
            namespace=namespace,
            network=network,
            processes=self._processes,
            client=client,
            recorder=Recorder(client, "kubelet", utc_now, name),
            make_sandbox=self._sandboxes.make,
            host_sandbox=self._host_sandboxes[name],
            null=self._null,
            logs=self._folder.logs,
            services=self._caches.services.objects,
            allocatable=self._allocatable,
            folder=self._folder.run,
            dns=self._dns,
            sandbox_only=self.spec.sandbox_only,
            hidden=self._hidden,
            shows_homes=self.spec.mount_home,
            shows_processes=self.spec.allow_host_pid,
            layers=self._layers,
            groups=self._groups,
            host_paths=self.spec.host_paths,
            up=self._folder.command("up"),
        )

    def _start_outside(self, outside: Namespace) -> None:
        """The host outside runs the pods that are given to it by name, in its own network."""
        client, ips = (
            self._client(identity.node(underlay.OUTSIDE), self._agents_call),
            tuple(map(str, underlay.outside_ips(self.plan))),
        )
        kubelet = self._kubelet(underlay.OUTSIDE, ips, outside, NoPodNetwork(underlay.OUTSIDE), client)
        kubelet.dns = node_dns(ips, self.spec.cluster_domain)  # it is its own name server: the cluster's refuses strangers
        self._kubelets[underlay.OUTSIDE] = kubelet

    def _origin(self) -> Namespace:
        """The namespace from which connections of the host enter the cluster: that of the first node that has power."""
        nodes = list(self._nodes.values())
        return next((node for node in nodes if not node.is_off), nodes[0]).machine.namespace

    def _changed(self, kind: Kind, old: Any, new: Any) -> None:
        """An object came (no old), changed or went (no new): all agents are told."""
        gone = old.metadata.name if kind is Node and new is None and old is not None else ""
        if gone in self._nodes and not self._nodes[gone].is_off:
            self._later(self._register_again(old))
        if kind is Service and new is None and old is not None and old.metadata.path == SERVICE:
            self._later(registration.create_dns_service(self._control, self.plan))
        for node in self._concerned(kind, new):
            node.changed(kind, old, new)
        if kind is Service:
            self._publisher.service_changed(old, new)

    def _concerned(self, kind: Kind, new: Any) -> Iterable[LabNode]:
        """The nodes to be told of a change: of one that says something of single pods to policies, only those where one is attached, or
        where rules look into a set of peers that one leaves or joins."""
        nodes = self._nodes.values()
        if kind is not Change:
            return nodes
        concern = Concern.of(new)
        return [node for node in nodes if node.agent.is_concerned(concern)]

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._registrations.add(task)
        task.add_done_callback(self._registrations.discard)

    async def _register_again(self, node: Node) -> None:
        """With the blocks that it had, so that its pods keep their addresses."""
        name = node.metadata.name
        manifest = self._manifest(list(self._nodes).index(name) + 1)
        manifest["spec"]["podCIDRs"] = list(node.spec.pod_cidrs)
        await registration.register_again(self._control, manifest, lambda: name in self._caches.nodes.objects)

    # Pods.

    def _reserve_addresses(self, _: Informer[Pod], pods: list[Pod]) -> None:
        """Reserve the addresses of pods of the last run, whichever of them is attached first."""
        for pod in pods:
            node = self._nodes.get(pod.spec.node_name)
            if node is not None and not pod.spec.host_network and pod.ips and pod.status.phase not in ENDED:
                node.agent.reserve(pod.metadata.uid, pod.ips)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        place = pod.spec.node_name if pod else ""
        if (node := self._nodes.get(place)) is not None:
            node.pod_changed(old, new)
        elif (kubelet := self._kubelets.get(place)) is not None:
            kubelet.pod_changed(old, new)

    def _worker(self, namespace: str, name: str) -> PodWorker | None:
        found = (kubelet.worker(namespace, name) for kubelet in self._kubelets.values())
        return next((worker for worker in found if worker is not None), None)


def _has_namespaces(pod: Mapping[str, Any]) -> bool:
    """Is a pod going to have namespaces of its own?"""
    return not pod["spec"].get("hostNetwork") and pod.get("status", {}).get("phase") not in ENDED


def body(
    spec: LabSpec,
    folder: Folder,
    listener: socket.socket,
    pods_per_node: int,
    zygote: Began,
    reporter: Reporter,
    groups: Groups,
    making: Making,
) -> None:
    """What PID 1 of a lab does. LabError when the lab can't be started. `making`: its certificates."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_large_blocks_apart()
    unforeseen = Unforeseen()
    for handler in logging.getLogger().handlers:
        handler.addFilter(unforeseen)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(started())
        lab = Lab(spec, folder, zygote, listener, reporter, unforeseen, groups, making)
        try:
            await lab.start(pods_per_node)
        except (Unwritable, ApiError) as error:
            raise LabError(f"the lab can't be started: {error}") from None
        await lab.run()

    with asyncio.Runner(loop_factory=loop_turns.loop_factory(os.environ)) as runner:
        runner.run(main())
