"""A machine of the lab as a node of the cluster: `agent.NodeAgent` with a kubelet beside it, what a lab knows of its machines,
and the faults that it makes on them (`faults`).

While the node is cut from the API, its agent and its kubelet read copies of the caches, and are told of no change.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from podplane.agent.attachments import AttachedPod
from podplane.agent.caches import Caches
from podplane.agent.feature import Kind
from podplane.agent.kernel import Kernel
from podplane.agent.keys import Key
from podplane.agent.node import NodeAgent, Started
from podplane.agent.ownership import ownership
from podplane.agent.pause import Pause
from podplane.agent.peer_plans import PeerPlans
from podplane.agent.planner import NOT_APPLIED, RecordEvent
from podplane.agent.poller import Poller
from podplane.agent.settings import Settings
from podplane.apiserver.server import utc_now
from podplane.cni.network import Attachment
from podplane.kernel.namespace import Namespace
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.lab import second_nic
from podplane.lab.agents import AgentInProcess, LabAgent
from podplane.lab.api_connection import ApiConnection, Objects, copy_of, differences, objects_of
from podplane.lab.fabric import Machine
from podplane.lab.faults.arguments import Boot
from podplane.lab.faults.cable import Cable
from podplane.lab.faults.control import FaultControl
from podplane.lab.power import Power
from podplane.lab.underlay import UPLINK
from podplane.model.config import HEARTBEAT_SECONDS, IS_UP, NetworkConfig
from podplane.model.objects import Node
from podplane.model.pod import Pod
from podplane.nameserver.keeper import NameServer
from podplane.runtime.heartbeat import Heartbeat
from podplane.runtime.kubelet import Kubelet
from podplane.state.operations import LinkEvent
from podplane.state.ownership import Ownership

log = logging.getLogger(__name__)
A_FAULT, UPLINK_IS_DOWN, IS_OFF = "a fault cuts it off", f"its {UPLINK} is down", "it has no power"
"""Why a node does not reach the API."""
LOOK_SECONDS = 1.0
"""Between two looks whether the uplink is up again."""


class LabNode:
    """One node, the `Host` of its agent, and the `Target` of its faults; its methods run on one event loop.

    `power` is that of all machines. `client` goes over `connection`; `control` is the lab's own client, which no fault cuts. `pods`
    are those of the cluster by path. `remake_uplink` deletes the uplink, the node's end of `cable`, and makes it again; it blocks.
    `status` is what its kubelet says of the machine, `name_server` the lab's; `process` is its agent where that is a process of its own.
    A node that `is_new` has just been registered with all that its kubelet says of it.
    """

    kubelet: Kubelet

    def __init__(
        self,
        name: str,
        machine: Machine,
        settings: Settings,
        peers: PeerPlans,
        poller: Poller,
        connection: ApiConnection,
        client: Client,
        control: Client,
        caches: Caches,
        pods: Mapping[str, Pod],
        record_event: RecordEvent,
        power: Power,
        remake_uplink: Callable[[], None],
        cable: Cable,
        status: Mapping[str, Any],
        name_server: NameServer,
        *,
        process: LabAgent | None = None,
        is_new: bool = False,
        beat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._name, self._beat_seconds = name, beat_seconds
        self._config = settings.network
        self._connection = connection
        self._record = record_event
        self._remake_uplink = remake_uplink
        self.cable = cable
        self._name_server = name_server
        self._power = power
        self._make_agent: Callable[[], NodeAgent] = lambda: NodeAgent(
            name, self, settings, client, caches, peers, self._record_event, utc_now, poller
        )
        self._client = client
        self.set_up(machine, status, process, caches.nodes.objects[name], is_new=is_new)
        self.faults = FaultControl(self, control, utc_now, caches.nodes.objects[name])
        self._caches = caches
        self._pods = pods
        self._control = control
        self._known: tuple[Objects, dict[str, Pod]] | None = None
        """While it is cut from the API: the objects and this node's pods as they were then."""
        self._reads_copy = False
        """Does it read these, in caches of its own?"""
        self._switching = asyncio.Lock()
        """Whoever has it may change which caches the node reads."""

    def set_up(
        self, machine: Machine, status: Mapping[str, Any], process: LabAgent | None, registered: Node, *, is_new: bool = False
    ) -> None:
        """Have this machine from now on, with an agent and a heartbeat that know of none before it."""
        self.machine = machine
        self._has_ended = False
        self._in_process = AgentInProcess(self._make_agent())
        self.agent: LabAgent = process or self._in_process
        self.heartbeat = Heartbeat(self._client, registered, utc_now, status, is_reported=is_new, interval=self._beat_seconds)
        self._uplink_changed = asyncio.Event()
        self._uplink_is_told_down = registered.has_no_network
        self._uplink_changed.set()  # the Node may say what was true before

    def run(self) -> None:
        """Keep agent and heartbeat running, in tasks of their own."""
        self.agent.run()
        self.agent.supervisor.add("heartbeat", self.heartbeat.run)
        self.agent.supervisor.add("uplink", self._follow_uplink)
        if not self.agent.tells_links:
            self.agent.supervisor.add("links", self._follow_links)

    def changed(self, kind: Kind, old: Any, new: Any) -> None:
        """An object came (no old), changed or went (no new)."""
        if kind is Node and new is not None and new.metadata.name == self._name:
            self.faults.node_changed(new)
            if old is None:  # it was deleted, and has registered again
                self._uplink_is_told_down = new.has_no_network
                self._uplink_changed.set()
        if self._known is None:
            self._changed(kind, old, new)

    def _changed(self, kind: Kind, old: Any, new: Any) -> None:
        if kind is Node and new is not None and new.metadata.name == self._name:
            self.heartbeat.node_changed(new)
        self.agent.changed(kind, old, new)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """A pod of this node came (no old), changed or went (no new)."""
        if self._known is None:
            self._pod_changed(old, new)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self.kubelet.pod_changed(old, new)
        if new is None and old is not None:
            self.agent.cancel_reservation(old.metadata.uid)

    def _own_pods(self) -> dict[str, Pod]:
        return {path: pod for path, pod in self._pods.items() if pod.spec.node_name == self._name}

    def _record_event(self, key: Key, message: str, reason: str = NOT_APPLIED) -> None:
        """An event about what the agent did; from a node that is cut from the API, none arrives."""
        if not self._connection.is_cut:
            self._record(key, message, reason)

    # `Host`, and `Place` of faults.

    @property
    def name(self) -> str:
        """Of the node."""
        return self._name

    @property
    def namespace(self) -> Namespace:
        """The machine's network namespace."""
        return self.machine.namespace

    def open_kernel(self) -> Kernel:
        """A door to the machine's kernel state that knows nothing of what went through the former one."""
        return self.machine.open_kernel()

    def attached(self) -> Iterable[AttachedPod]:
        """The pods whose network is there: the lab's process lives on when an agent ends, and remembers them."""
        node = self._in_process.node
        return node.agent.network.attached if node.has_agent else ()

    def last_ips(self) -> tuple[str, ...]:
        """Likewise."""
        node = self._in_process.node
        return node.agent.network.addresses.last if node.has_agent else ()

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """Nothing: see `attached`."""

    def detached(self, id_: tuple[str, str]) -> None:
        """Nothing."""

    def link_changed(self, name: str, event: LinkEvent) -> None:
        """The uplink came, went or lost an address. While it is up, the machine's own network configuration is applied again, as on a
        real machine, and so it is of eth1; while it is not, nothing of the node reaches the API."""
        if name == second_nic.NIC and event.is_present and event.is_up:
            self.machine.configure_second()
        if name != UPLINK:
            return
        if event.is_present and event.is_up:
            self.machine.configure_uplink()
        else:
            self._cut(UPLINK_IS_DOWN)
        self._uplink_changed.set()

    async def _follow_links(self) -> None:
        """Hear of the machine's links, where the agent is another process, which has no lab to tell."""
        monitor, loop = self.machine.kernel.monitor(Ownership()), asyncio.get_running_loop()

        def heard() -> None:
            for name, event in monitor.changes().links.items():
                self.link_changed(name, event)

        loop.add_reader(monitor.fileno(), heard)
        try:
            await loop.create_future()
        finally:
            loop.remove_reader(monitor.fileno())
            monitor.close()

    async def _follow_uplink(self) -> None:
        """Say on the Node whether the uplink is up, and reach the API again when it is. While it is not, look again and again: an agent
        that starts tells of no change before that."""
        while True:
            try:
                await asyncio.wait_for(self._uplink_changed.wait(), LOOK_SECONDS if self._uplink_is_told_down else None)
            except TimeoutError:
                pass
            self._uplink_changed.clear()
            await self._read_copy()
            is_down = UPLINK_IS_DOWN in self._connection.causes
            if is_down and await asyncio.to_thread(self.machine.is_uplink_up):
                await self._join(UPLINK_IS_DOWN)
                is_down = False
            if is_down != self._uplink_is_told_down:
                await self._tell_uplink(is_down=is_down)

    async def _tell_uplink(self, *, is_down: bool) -> None:
        try:
            node = await self._control.get("nodes", "", self._name)
            body = {"conditions": with_uplink(node.get("status", {}).get("conditions", ()), utc_now(), is_down=is_down)}
            await self._control.patch_status("nodes", "", self._name, body, node["metadata"]["uid"])
        except ApiError as error:
            log.warning("uplink node=%s error=%s", self._name, error)
            await asyncio.sleep(LOOK_SECONDS)
            self._uplink_changed.set()
            return
        self._uplink_is_told_down = is_down

    @property
    def config(self) -> NetworkConfig:
        """The cluster's."""
        return self._config

    @property
    def ownership(self) -> Ownership:
        """The marks of what the agent makes."""
        return ownership(self._config)

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Those that the agent sets in the node's own namespace."""
        return self.agent.sysctls

    # `Target` of faults.

    async def restart_agent(self) -> Started:
        """End the agent and begin with a new one, as on a real node where its process ends and another one starts."""
        return await self.agent.restart()

    async def cut_api(self) -> None:
        """Nothing of the node reaches the API any more, and it is told of no change."""
        self._cut(A_FAULT)
        await self.agent.cut()
        await self._read_copy()

    def _cut(self, cause: str) -> None:
        """From now on; `_read_copy` is due."""
        self._connection.causes[cause] = None
        if self._known is None:
            self._name_server.cut(self._name)
            self._known = (objects_of(self._caches), self._own_pods())

    async def _read_copy(self) -> None:
        """While it is cut from the API, read the objects as they were then. Until it does, what it plans may be of later ones."""
        async with self._switching:
            if self._known is not None and not self._reads_copy:
                copy = await copy_of(self._known[0], Pause())
                self._reads_copy = True
                self._read_from(copy)

    async def reconnect_api(self) -> None:
        """It reaches the API, and is told what is otherwise than it was when it was cut off."""
        await self.agent.join()
        await self._join(A_FAULT)

    def kill_agent(self) -> int:
        """SIGKILL to its process; the process id, 0 when there is none. FaultError when it is none of its own."""
        return self.agent.kill()

    def pause_agent(self) -> int:
        """SIGSTOP to its process; likewise."""
        return self.agent.pause()

    def resume_agent(self) -> None:
        """It goes on."""
        self.agent.resume()

    async def _join(self, cause: str) -> None:
        """This cause is over."""
        self._connection.causes.pop(cause, None)
        async with self._switching:
            if self._known is not None and not self._connection.is_cut:
                self._name_server.join(self._name)
                (objects, pods), self._known = self._known, None
                self._reads_copy = False
                self._read_from(self._caches)
                await self._tell_differences(objects, pods)

    async def _tell_differences(self, objects: Objects, pods: dict[str, Pod]) -> None:
        """Tell of what is otherwise than these are."""
        pause = Pause()
        for (kind, present), known in zip(self._caches.by_kind(), objects, strict=False):
            for old, new in differences(known, present.objects):
                self._changed(kind, old, new)
                await pause()
        for former, now in differences(pods, self._own_pods()):
            self._pod_changed(former, now)

    def _read_from(self, caches: Caches) -> None:
        self.agent.read_from(caches)
        self.kubelet.services = caches.services.objects

    async def stop_name_server(self) -> None:
        """None of this node's questions is answered here, until it is resumed."""
        await self._name_server.stop(self._name)

    def resume_name_server(self) -> None:
        """They are answered again."""
        self._name_server.resume(self._name)

    def kill_name_server(self) -> int:
        """SIGKILL to the process, which is that of all nodes; its id, 0 when there is none."""
        return self._name_server.kill()

    # Power.

    @property
    def is_off(self) -> bool:
        """Has its machine no power?"""
        return IS_OFF in self._connection.causes

    async def power_off(self, boot: Boot) -> None:
        """Now; when the machine boots, it has what `boot` says. FaultError when it can't have that: it keeps its power."""
        self._power.choose(self._name, boot)
        await self._power.off(self)

    async def lose_power(self) -> None:
        """Agent and heartbeat end, and nothing of the node reaches the API."""
        self._cut(IS_OFF)
        if not self._has_ended:
            await self.agent.close()
        self._has_ended = True

    async def power_on(self) -> str:
        """Boot. What was left half done by another try is gone before."""
        await self._power.off(self)
        place = await self._power.boot(self)
        return " and ".join(map(str, place.ips))

    def connect(self) -> None:
        """Its machine boots: it reaches the API, and reads what all read."""
        self._connection.causes.clear()
        self._name_server.join(self._name)
        self._known, self._reads_copy = None, False

    def start_pods(self) -> None:
        """Start those that the API has for it; its agent keeps their addresses for them."""
        for pod in self._own_pods().values():
            self._pod_changed(None, pod)

    def configure_uplink(self) -> None:
        """As when the machine boots; what is there stays; blocks."""
        self.machine.configure_uplink()

    def remake_uplink(self) -> None:
        """Delete the uplink and make it again; blocks."""
        self._remake_uplink()


def with_uplink(conditions: Iterable[Mapping[str, str]], now: datetime.datetime, *, is_down: bool) -> list[dict[str, str]]:
    """The conditions of a Node, with what its machine says of the network: is the uplink down?"""
    before = {one["type"]: dict(one) for one in conditions}
    said = dict(IS_UP)
    if is_down:
        said |= {"status": "True", "reason": "UplinkDown", "message": f"{UPLINK} is down"}
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    old = before.get(said["type"], {})
    since = old.get("lastTransitionTime", time) if old.get("status") == said["status"] else time
    return [*(before | {said["type"]: said | {"lastHeartbeatTime": time, "lastTransitionTime": since}}).values()]
