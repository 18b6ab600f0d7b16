"""The agent of one node as a process of its own: `podplane agent`.

    lock, journal ──► socket for the plugin ──► the API's lists ──► the Node ──► settings, nothing in the way ──► the agent ──► READY
         at SIGTERM: calls that are under way are finished, and the kernel stays as it is; so it does at SIGKILL

Nothing is changed in the kernel before the API was listed once, by this agent or by one before it that has kept what it knew
(`machine.known`), and before nothing is in the way of it (`machine.preflight`). From then on the agent works with what it knows, whether
the API is there or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from podplane import loop_turns, pauses
from podplane.agent.caches import KEPT, Caches
from podplane.agent.delegation import Plugins
from podplane.agent.feature import Kind
from podplane.agent.keys import NodeKey
from podplane.agent.node import Concern, NodeAgent, Started
from podplane.agent.object_events import ObjectEvents
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.settings import Settings
from podplane.cni.server import Server
from podplane.kernel import sysctl
from podplane.kernel.errors import Denied, KernelError
from podplane.kernel.namespace import Namespace, Workers
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder, settled
from podplane.kubeapi.supervise import Supervisor
from podplane.kubeapi.transport import HttpTransport
from podplane.machine import capabilities, own_name_server, snapshot
from podplane.machine.alone import alone, how_to_stop
from podplane.machine.beside import Asked, Beside, asked_of
from podplane.machine.cidrs import KeptCidrs
from podplane.machine.cluster import Cluster, Waiting
from podplane.machine.configuration import LEVELS, Configuration
from podplane.machine.confinement import denied
from podplane.machine.conflist import NetworkFile
from podplane.machine.errors import MachineError
from podplane.machine.fd_store import FdStore
from podplane.machine.former import Former, has_network
from podplane.machine.host import MachineHost
from podplane.machine.journal import Journal
from podplane.machine.known import KnownCluster, Whose
from podplane.machine.name_server import NameServerWatch
from podplane.machine.network import Front
from podplane.machine.no_route import NoRoute
from podplane.machine.node_events import NodeEvents
from podplane.machine.notify import Notifier
from podplane.machine.one_machine import OneMachine, own_id
from podplane.machine.own_block import OwnBlock
from podplane.machine.own_name_server import OwnNameServer
from podplane.machine.preflight import Preflight
from podplane.machine.surroundings import Surroundings
from podplane.machine.taint import ReadyTaint
from podplane.machine.waiting_port import WaitingPort
from podplane.model.pod_info import PodInfo
from podplane.model.words import counted
from podplane.policy.index import Change

log = logging.getLogger(__name__)
SOCKET, JOURNAL, LOCK = "cni.sock", "attachments.journal", "lock"
"""In the run folder."""
WORKERS = 2
STOP_SECONDS = 10.0
"""Calls that are under way have so long to end."""
UNREACHED = (
    "%s of an agent before this one: pods are looked into, and repaired inside, from the plugin's next CHECK or ADD of them on, \
because the agent has no CAP_SYS_ADMIN"
)
STARTED = "X_PODPLANE_STARTED"
"""What a start did (`agent.node.Started`, JSON): told to the manager with READY."""


def now() -> datetime.datetime:
    """The time of the clock."""
    return datetime.datetime.now(datetime.UTC)


@contextlib.contextmanager
def run_folder(path: str) -> Iterator[Path]:
    """The folder of the running agent, for root alone, and for one agent at a time. MachineError when that can't be had."""
    folder = Path(path)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(folder)
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        why = denied(f"{error.filename or folder}: {error.strerror}", error.errno)
        raise MachineError(f"{why}: give a folder in --run-dir that root can write to") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield folder
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "?"
        raise MachineError(
            f"an agent runs here already (process {pid}): {folder / LOCK} is locked; {how_to_stop(pid)}"
        ) from None
    finally:
        os.close(fd)


def _make_private(folder: Path) -> None:
    """For this user alone. MachineError when it is somebody else's: its files would be out of their reach, or links of theirs followed."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise MachineError(f"{folder} is user {found.st_uid}'s: give a folder of your own in --run-dir")
    if found.st_mode & 0o077:
        if any(folder.iterdir()):
            raise MachineError(f"{folder} has files, and others may use it: give an empty folder in --run-dir, or a new one")
        folder.chmod(0o700)


def check_root() -> None:
    """MachineError unless this is root, who alone may change the network."""
    if os.geteuid():
        raise MachineError("an agent changes the network of the machine: run it as root")


def run(access: Access, node_name: str, configuration: Configuration) -> None:
    """Be the agent of this node until SIGTERM. MachineError when it can't be."""
    logging.basicConfig(level=LEVELS[configuration.log_level], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpcore2").setLevel(logging.WARNING)  # it has a line for each request
    capabilities.prepare(configuration.sysctl_dir)
    with (
        run_folder(configuration.run_dir) as folder,
        alone(),
        asyncio.Runner(loop_factory=loop_turns.loop_factory(os.environ)) as runner,
    ):
        runner.run(Program(access, node_name, configuration, folder).run())


class _Known(NamedTuple):
    """The cluster as this process knows it, and whom it tells."""

    transport: HttpTransport
    client: Client
    whose: Whose
    cluster: Cluster
    events: ObjectEvents
    one: OneMachine
    former: Former

    @property
    def caches(self) -> Caches:
        """The objects of the cluster."""
        return self.cluster.caches

    def tell(self, why: str) -> None:
        """Have an event of this process' Node written."""
        self.events(NodeKey(self.cluster.node_name), why)


class Program:
    """The process; `run` is its life."""

    def __init__(self, access: Access, node_name: str, configuration: Configuration, folder: Path) -> None:
        self._access = access
        self._name_server: OwnNameServer | None = None
        self._node_name = node_name
        self._configuration = configuration
        self._folder = folder
        self._notifier = Notifier()
        self._waiting = Waiting(self._notifier.status)
        self._workers = Workers(WORKERS)
        self._end = asyncio.Event()
        self._agent: NodeAgent | None = None
        self._events: list[ObjectEvents | NodeEvents] = []
        """What writes events, as far as that has begun."""

    async def run(self) -> None:
        """Begin, serve until SIGTERM, and end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        beat = loop.create_task(self._notifier.beat())
        ended = loop.create_task(self._end.wait())
        served = loop.create_task(self._serve())
        try:
            await asyncio.wait((ended, served), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._notifier.stopping()
            beat.cancel()
            await _cancelled(served)

    async def _serve(self) -> None:
        journal = self._journal()
        host = MachineHost(journal, self._workers, FdStore(self._notifier))
        if unreached := sum(not one.is_within_reach for one in host.found.values()):
            log.warning(UNREACHED, counted(unreached, "interface"))
        front = Front(journal, self._waiting)
        server = Server(front, host.namespace, self._workers, dict(host.found))
        try:
            server.start(self._folder / SOCKET)
        except OSError as error:
            raise MachineError(denied(f"{self._folder / SOCKET}: {error.strerror}", error.errno)) from None
        supervisor = Supervisor()
        port = WaitingPort(self._waiting, self._configuration.agent_port)
        await port.open(host.namespace)
        try:
            agent = self._agent = await self._started(host, supervisor)
            port.close()
            front.begin(agent)
            agent.run()
            await asyncio.get_running_loop().create_future()
        finally:
            front.end()
            async with asyncio.timeout(STOP_SECONDS):
                if self._name_server is not None:
                    await self._name_server.stop()
                await server.close()  # calls that are under way need the agent's tasks
                if self._agent is not None:
                    await self._agent.close()
                await supervisor.close()
            await settled({task for one in self._events for task in one.pending})

    def _journal(self) -> Journal:
        try:
            return Journal(self._folder / JOURNAL)
        except OSError as error:
            raise MachineError(denied(f"{self._folder / JOURNAL}: {error.strerror}", error.errno)) from None

    async def _started(self, host: MachineHost, supervisor: Supervisor) -> NodeAgent:
        """The agent, whose network is in place."""
        known = await self._known(host, supervisor)
        surroundings = self._surroundings(host, known)
        settings = await surroundings.settings()
        agent = self._node_agent(host, known, settings, supervisor)
        beside = self._beside(host, agent, known.cluster, known.tell, settings)
        names = self._own_name_server(agent, settings, known.caches, host.namespace, known.tell)
        self._connect(agent, known, surroundings, beside, names)
        if names is not None:
            await names.begin(supervisor)
        started = await self._first_start(agent)
        host.present, host.links_changed = lambda: agent.agent.network.attached, surroundings.changed
        supervisor.add("surroundings", lambda: surroundings.follow(partial(_restart, agent, names)))
        supervisor.add("beside", beside.run)
        self._keep_node(host, agent, known, supervisor)
        if settings.dns.ips and names is None:
            watch = NameServerWatch(lambda: agent.agent.view, lambda answers: agent.name_server_changed(answers=answers))
            supervisor.add("name server", watch.run)
        self._reserve(agent, known.caches.pods.objects.values())
        await self._ready(started, names)
        return agent

    async def _known(self, host: MachineHost, supervisor: Supervisor) -> _Known:
        """The cluster, once it was listed; how the machine is before podplane changes it is kept then."""
        transport = HttpTransport(self._access)
        client = Client(transport, "")
        whose = Whose.of(self._node_name, self._access)
        kept = KnownCluster(self._folder, whose, KEPT)
        cluster = Cluster(client, supervisor, self._node_name, self._waiting, kept)
        nodes = cluster.caches.nodes.objects
        recorder = Recorder(client, "podplane", now, one_of_many=True)
        events, node_events = ObjectEvents(recorder, cluster.caches), NodeEvents(recorder, self._node_name, nodes)
        self._events, self._waiting.tell = [events, node_events], node_events
        await cluster.known()
        await asyncio.to_thread(self._remember, host)
        one = OneMachine(client, nodes, self._node_name, own_id(), port=self._configuration.agent_port)
        former = Former(self._configuration.migrate_from)
        return _Known(transport, client, whose, cluster, events, one, former)

    def _surroundings(self, host: MachineHost, known: _Known) -> Surroundings:
        """What the settings are made of, and what is in the way of them."""
        preflight = Preflight(
            host.namespace,
            known.client,
            known.one,
            str(self._folder),
            self._configuration.checked_conf_dir,
            self._access.host,
            lambda: known.transport.skew,
        )
        return Surroundings(
            self._configuration,
            host.values,
            known.client,
            known.cluster,
            self._waiting,
            KeptCidrs(self._folder, known.whose),
            known.tell,
            sysctl.read_here,
            known.former,
            preflight,
        )

    def _node_agent(self, host: MachineHost, known: _Known, settings: Settings, supervisor: Supervisor) -> NodeAgent:
        """The agent, which has not begun."""
        return NodeAgent(
            self._node_name,
            host,
            settings,
            known.client,
            known.caches,
            PeerPlans(),
            known.events,
            now,
            supervisor=supervisor,
            plugins=Plugins(self._folder, self._configuration.plugin_path, may_enter=self._workers.may_enter),
            elsewhere=known.former.given,
        )

    def _connect(
        self, agent: NodeAgent, known: _Known, surroundings: Surroundings, beside: Beside, names: OwnNameServer | None
    ) -> None:
        """The agent reports what the others found, and is told what changes in the cluster."""
        one = known.one
        agent.former_network = lambda: known.former.report(
            known.caches.pods.objects.values(), self._node_name, _attached_uids(agent).__contains__
        )
        agent.machine_without = lambda: [
            *([one.found] if one.found else []),
            *surroundings.without,
            *beside.without,
            *(names.problems if names is not None else ()),
        ]
        agent.machine_unready = lambda: next(iter(surroundings.in_the_way), one.found)
        _subscribe(agent, known.caches)

    def _keep_node(self, host: MachineHost, agent: NodeAgent, known: _Known, supervisor: Supervisor) -> None:
        """Engines and the Node say that the network is there, as long as it is."""
        is_ready = self._announced(agent, supervisor, known.tell)
        client, nodes, one, name = known.client, known.caches.nodes, known.one, self._node_name
        supervisor.add("taint", ReadyTaint(client, nodes, name, is_ready).run)
        supervisor.add("network of the Node", NoRoute(client, nodes, name, is_ready, now).run)
        supervisor.add("block of the Node", OwnBlock(client, nodes, name, now).run)
        supervisor.add("claim of the Node", lambda: one.keep(nodes, host.values, self._waiting.tell))

    def _announced(self, agent: NodeAgent, supervisor: Supervisor, tell: Callable[[str], None]) -> Callable[[], bool]:
        """Engines are told of the network, where there is a folder for that. Is it there for pods?"""
        file: NetworkFile | None = None
        if folder := self._configuration.cni_conf_dir:
            file = NetworkFile(Path(folder), agent.unready, tell, replace=self._configuration.cni_replace)
            supervisor.add("network file", file.run)
        return lambda: agent.unready() is None and not agent.machine_unready() and (file is None or file.is_there)

    async def _ready(self, started: Started, names: OwnNameServer | None) -> None:
        """Say so, once the node's name server answers, where it has one."""
        for refused in started.refused:
            log.warning("start node=%s refused=%s", self._node_name, refused)
        gc.collect()
        pauses.shorten()
        if names is not None:
            self._waiting.reason = "waiting for the node's name server"
            await names.settled()
        self._notifier.ready(**{STARTED: msgspec.json.encode(started).decode()})
        say_ready(self._notifier, self._node_name, started)

    def _own_name_server(
        self, agent: NodeAgent, settings: Settings, caches: Caches, namespace: Namespace, tell: Callable[[str], None]
    ) -> OwnNameServer | None:
        if self._configuration.has_name_server:
            self._name_server = OwnNameServer(agent, settings, self._access, caches, namespace, own_name_server.start, tell)
        return self._name_server

    def _beside(
        self, host: MachineHost, agent: NodeAgent, cluster: Cluster, tell: Callable[[str], None], settings: Settings
    ) -> Beside:
        """What looks for others' firewalls and kube-proxy."""

        def asked() -> Asked | None:
            view = agent.agent.view
            if view.node is None:
                return None
            pods = cluster.caches.pods.objects.values()
            return asked_of(self._node_name, view.nodes, agent.agent.config, settings.dns.ips, pods)

        def links() -> list[str]:
            return [name for _, name in host.namespace.run(socket.if_nameindex)]

        clean = self._configuration.clean_kube_proxy
        return Beside(host.namespace, self._node_name, asked, links, tell, serves=settings.services.enabled, clean=clean)

    async def _first_start(self, agent: NodeAgent) -> Started:
        """MachineError when the kernel does not let it begin."""
        try:
            return await agent.start()
        except Denied as error:
            raise MachineError(denied(str(error), error.errno)) from None
        except PermissionError as error:
            raise MachineError(denied(f"the kernel refuses what an agent needs: {error.strerror}", error.errno)) from None

    def _remember(self, host: MachineHost) -> None:
        """Keep how the machine is before the first start of an agent since it booted."""
        if snapshot.load(self._folder) is not None:
            return
        try:
            snapshot.save(self._folder, snapshot.take(host.namespace, self._configuration.folders))
        except (OSError, KernelError) as error:
            log.warning("how this machine is can't be kept: %s", error)

    def _reserve(self, agent: NodeAgent, pods: Any) -> None:
        """Pods of this node that are not attached, as after a reboot, get the addresses again that they had."""
        network, attached = agent.agent.network, _attached_uids(agent)
        for pod in pods:
            if has_network(pod, self._node_name) and pod.metadata.uid not in attached:
                network.reserve(pod.metadata.uid, pod.ips)


async def _restart(agent: NodeAgent, names: OwnNameServer | None, settings: Settings) -> Started:
    if names is not None:
        names.follow(settings)
    return await agent.restart(settings)


def say_ready(notifier: Notifier, node_name: str, started: Started) -> None:
    """In the log, at the default level where no manager has a line of its own for that."""
    level = logging.INFO if notifier.has_manager else logging.WARNING
    text = "ready: the network of this node is in place node=%s changes=%d seconds=%.3f"
    log.log(level, text, node_name, started.changes, started.seconds)


def _attached_uids(agent: NodeAgent) -> set[str]:
    """Those of the pods that are attached."""
    return {request.pod_uid for request, _ in agent.agent.network.attached}


def _subscribe(agent: NodeAgent, caches: Caches) -> None:
    caches.subscribe(lambda kind, old, new: _told(agent, kind, old, new))
    caches.pods.subscribe(lambda old, new: _pod_went(agent, old, new))


def _told(agent: NodeAgent, kind: Kind, old: Any, new: Any) -> None:
    """Something changed: of what concerns single pods, only if these are here."""
    if agent.has_agent and (kind is not Change or agent.is_concerned(Concern.of(new))):
        agent.changed(kind, old, new)


def _pod_went(agent: NodeAgent, old: PodInfo | None, new: PodInfo | None) -> None:
    """Its addresses are kept no longer."""
    if agent.has_agent and old is not None and (new is None or new.has_ended):
        agent.agent.network.cancel_reservation(old.metadata.uid)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    except TimeoutError:
        log.warning("calls that were under way did not end within %g s", STOP_SECONDS)
