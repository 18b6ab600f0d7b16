"""The pods of one node: `cni.Network` over the planner, the ledger and the writer.

Attaching a pod does not wait for the reconcile loop: its key is planned at once, and the call returns when nothing of it is pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Iterator, Mapping

import msgspec

from podplane.agent.addresses import Named, NodeAddresses, Unavailable, container_of
from podplane.agent.features import attachment_key
from podplane.agent.kernel import Kernel
from podplane.agent.keys import Key, NodeKey, PodKey, PolicyNameServersKey, PolicyPeersKey, PolicySetKey
from podplane.agent.pause import Pause
from podplane.agent.planner import Planner
from podplane.agent.record import Record
from podplane.agent.watcher import Watcher
from podplane.agent.writer import Interrupted, Writer
from podplane.cni.network import Attached, Attachment, NetworkError, TryAgainError
from podplane.ipam.pool import Exhausted
from podplane.kernel.errors import KernelError
from podplane.model import host_ports
from podplane.model.bandwidth import why_refused
from podplane.model.view import BridgeNetwork, Sandbox, View
from podplane.pods.plan import gateway_for, gateway_mac, veth_name
from podplane.policy import tables
from podplane.state.ledger import SET, Ledger
from podplane.state.mac import asked_mac, interface_mac
from podplane.state.network import Address, Link, Sysctl
from podplane.state.nft_members import MEMBERS
from podplane.state.operations import Failure
from podplane.state.value import Identity, IPAddress, Value, address_of
from podplane.state.words import difference, in_words

log = logging.getLogger(__name__)
TRIES = 3
"""So often an ADD is tried again after refusals that contradict what is known of the kernel."""
PACKETS_SECONDS, POLL_SECONDS = 0.5, 0.002
"""So long an ADD waits until the kernel takes packets for the pod's addresses; between two questions."""
MOST_FAULTS = 4
"""So many are named by a CHECK."""
PEER_KEYS = (PolicyPeersKey, PolicyNameServersKey, PolicySetKey)
OF_PODS = (*tables.MAPS.values(), tables.TO_NODE, *tables.BELOW_ADMIN.values(), "self", "own")
"""Sets whose elements are those of pods of the node; others have elements of peers."""
LOOKED_AT = "looked-at"
"""The namespace of an attachment that is not admitted yet."""
AttachedPod = tuple[Attachment, tuple[str, ...]]
"""An attachment and its addresses."""


Elsewhere = Callable[[], Awaitable[Container[str]]]
"""Addresses that another network of this machine has given to containers, and that are still theirs."""


async def nowhere() -> Container[str]:
    """There is no other network."""
    return ()


class Attachments:
    """`Network` of one node; its methods run on one event loop."""

    def __init__(
        self,
        view: View,
        kernel: Kernel,
        ledger: Ledger,
        planner: Planner,
        writer: Writer,
        watcher: Watcher,
        wake: Callable[[], None],
        forgotten: Callable[[Collection[IPAddress]], Awaitable[None]],
        emptied: Callable[[], None],
        record: Record,
        named: Named,
        elsewhere: Elsewhere = nowhere,
    ) -> None:
        """`wake`: what is dirty is to be planned soon; `forgotten` waits until tracked connections of addresses are; `emptied` is called
        when the last pod has gone; `record` is told of what comes before the kernel is, and of what went after it; `named` knows which
        addresses the API has for pods, and `elsewhere` those that another network of the machine has given out, asked at each pod."""
        self._view = view
        self._kernel = kernel
        self._ledger = ledger
        self._planner = planner
        self._writer = writer
        self._watcher = watcher
        self._wake = wake
        self._forgotten = forgotten
        self._emptied = emptied
        self._record = record
        self._is_named, self._elsewhere = named, elsewhere
        self._given: Container[str] = ()
        """What `elsewhere` said last."""
        self._sandboxes: dict[tuple[str, str], Sandbox] = {}
        self._attached: dict[tuple[str, str], AttachedPod] = {}
        self._resumed: set[tuple[str, str]] = set()
        """Those of an agent before this one, whose namespaces are taken to be as they were planned."""
        self._interfaces: dict[str, dict[str, Sandbox]] = {}
        self._pods: dict[str, dict[tuple[str, str], Sandbox]] = {}
        self._macs: dict[tuple[BridgeNetwork | None, str], tuple[str, str]] = {}
        """Who has which MAC on which bridge."""
        self._detaching: dict[tuple[str, str], asyncio.Event] = {}
        """Attachments that are being detached, until the kernel has it: an ADD that planned one anew meanwhile would lose what goes."""
        self._leaving: dict[tuple[str, str], asyncio.Task[None]] = {}
        """What was detached, and still has its addresses."""
        self._addresses = NodeAddresses((), named=named, elsewhere=self._is_elsewhere)
        self._further: dict[BridgeNetwork, NodeAddresses] = {}
        """The addresses of further networks in which there is a pod."""
        view.sandboxes, view.interfaces, view.pods = self._sandboxes, self._interfaces, self._pods

    @property
    def attached(self) -> Collection[AttachedPod]:
        """The attachments that there are, each with its addresses."""
        return tuple(self._attached.values())

    @property
    def addresses(self) -> NodeAddresses:
        """Who has which address."""
        return self._addresses

    def blocks_changed(self, blocks: Iterable[str]) -> None:
        """The node has these blocks now. Who is attached keeps its addresses."""
        blocks = tuple(blocks)
        if blocks == self._addresses.blocks:
            return
        reserved = self._addresses.reservations
        self._addresses = NodeAddresses(blocks, self._name_of, named=self._is_named, elsewhere=self._is_elsewhere)
        for id_, sandbox in self._sandboxes.items():
            if sandbox.network is None:
                self._addresses.keep(id_, sandbox.ips)
        for uid, ips in reserved.items():
            self._addresses.reserve(uid, ips)

    def reserve(self, pod_uid: str, ips: tuple[str, ...]) -> None:
        """Keep the addresses of a pod that is not attached yet but had them before the node restarted."""
        self._addresses.reserve(pod_uid, ips)

    def cancel_reservation(self, pod_uid: str) -> None:
        """The pod will not come."""
        self._addresses.cancel_reservation(pod_uid)

    async def resume(self, attached: Iterable[AttachedPod], pause: Pause) -> None:
        """An agent before this one attached these: their network is as it was planned, and stays so."""
        sandboxes = []
        for request, ips in self._each_once(attached):
            self._pool(request.further).keep(request.id, ips)
            self._resumed.add(request.id)
            sandboxes.append(self._admit(request, ips, self._asked_mac(request)))
        for sandbox in sandboxes:
            for other in self._planner.keys_of(Sandbox, None, sandbox):
                self._planner.mark(other)
            key = attachment_key(sandbox)
            self._planner.try_plan(key)
            fragment = self._ledger.desired.fragment(key)
            self._ledger.trust(identity for identity, value in fragment.items() if value.netns)
            await pause()

    def _each_once(self, attached: Iterable[AttachedPod]) -> list[AttachedPod]:
        """Each address once: no agent attaches otherwise, but a damaged record may say it. Of two that are said to have one the kernel
        tells which it is; where it does not, it is the later one."""
        owners: dict[tuple[BridgeNetwork | None, IPAddress], tuple[str, str]] = {}
        found: dict[tuple[str, str], AttachedPod] = {}
        for one in attached:
            request, ips = one
            places = [(request.further, address_of(ip)) for ip in ips]
            rivals = {
                id_: place[1] for place in places if (id_ := owners.get(place, request.id)) != request.id and id_ in found
            }
            evidence = self._evidence(one) if rivals else 0
            if better := [rival for rival in rivals if self._evidence(found[rival]) > evidence]:
                self._pass_over(request, rivals[better[0]], found[better[0]][0])
                continue
            for rival, ip in rivals.items():
                self._pass_over(found.pop(rival)[0], ip, request)
            owners |= dict.fromkeys(places, request.id)
            found[request.id] = one
        return list(found.values())

    def _evidence(self, one: AttachedPod) -> int:
        """How much of an attachment that a record names is in the kernel, which was read: its link, and its addresses behind that."""
        request, ips = one
        if self._ledger.deviations.get(Link(name=veth_name(*request.id)).identity) is None:
            return 0
        self._kernel.attach(LOOKED_AT, request.netns)
        try:
            values = self._kernel.read_namespace(LOOKED_AT).values()
        except (KernelError, OSError):  # it can't be entered
            return 1
        finally:
            self._kernel.detach(LOOKED_AT)
        there = {value.ip for value in values if isinstance(value, Address) and value.link == request.ifname}
        return 2 if there.issuperset(map(address_of, ips)) else 1

    def _pass_over(self, request: Attachment, ip: IPAddress, other: Attachment) -> None:
        log.warning("resume %s: %s is had by %s, too, and it is detached", container_of(request.id), ip, other.who)
        self._record.detached(request.id)

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod: addresses, links and routes are in place when this returns. NetworkError says why not.

        What is attached already is attached once more: the kernel's objects are as planned when this returns.
        """
        while (going := self._detaching.get(request.id)) is not None:
            await going.wait()
        await self._writer.detached(_netns(request))
        if request.id not in self._sandboxes:  # a link of this name that goes has its far end in another namespace
            with contextlib.suppress(Interrupted):
                await self._writer.settled([Link(name=veth_name(request.container_id, request.ifname)).identity])
        if request.further is None:
            self._given = await self._elsewhere()
        if why := self._view.why_no_pods:
            raise TryAgainError(why)
        pod = request.who
        if why := why_refused(request.bandwidth) or host_ports.why_refused(request.host_ports):
            raise NetworkError(f"{pod}: {why}")
        if (before := self._sandboxes.get(request.id)) is not None and before.network != request.further:
            raise NetworkError(f"{pod}: interface {request.ifname} is attached to another network: detach it first")
        ips, mac = await self._allocated(request)
        self._keep(dataclasses.replace(request, mac=mac), ips, pod)
        if request.host_ports:
            self._view.listeners = await asyncio.to_thread(self._kernel.listening)
        sandbox = self._admit(request, ips, mac)
        try:
            if request.id in self._resumed:
                await self._look_again(sandbox)
            failed = await self._apply(None, sandbox)
            failed = await self._try_again(sandbox, failed)
        except Exception as error:
            await self._give_up(sandbox, request)
            raise NetworkError(f"{pod}: {error}") from error
        if failed:
            await self._give_up(sandbox, request)
            raise NetworkError(f"{pod}: {_first(failed)}")
        if why := self._unmet(sandbox):
            await self._give_up(sandbox, request)
            raise NetworkError(f"{pod}: {why}")
        await self._until_it_takes_packets(sandbox)
        if self._sandboxes.get(request.id) is not sandbox:
            raise NetworkError(f"{pod} was detached, or attached once more, while it was attached")
        return self._described(request, ips)

    def _is_elsewhere(self, ip: str) -> bool:
        return ip in self._given

    def _unmet(self, sandbox: Sandbox) -> str:
        """Why a container that is no pod does not get all that it asks for: events tell that of pods, and nobody else is told of it."""
        if sandbox.namespace:
            return ""
        keys = (key for key in self._planner.keys_of(Sandbox, None, sandbox) if isinstance(key, PodKey))
        return next(filter(None, map(self._planner.unmet, keys)), "")

    async def _look_again(self, sandbox: Sandbox) -> None:
        """Know what is in the namespace of one that an agent before this one attached: it may have left that half made."""
        for identity, value in self._ledger.desired.fragment(attachment_key(sandbox)).items():
            if isinstance(value, Sysctl) and value.netns:
                self._ledger.observe(identity, None)
        await self._watcher.audit_pod(sandbox.netns)
        self._watcher.is_own_doing(sandbox.netns)
        self._resumed.discard((sandbox.container_id, sandbox.ifname))

    async def _allocated(self, request: Attachment) -> tuple[tuple[str, ...], str]:
        """The same as `_allocate`; what it needs may be that of somebody who leaves."""
        if leaving := self._leaving.get(request.id):
            await asyncio.wait([leaving])
        try:
            return self._allocate(request)
        except NetworkError:
            if not self._leaving:
                raise
        await asyncio.wait(tuple(self._leaving.values()))
        return self._allocate(request)

    def _allocate(self, request: Attachment) -> tuple[tuple[str, ...], str]:
        """The addresses of an attachment, and the MAC that it asks for ("" for none). NetworkError when it can't have them; then it has
        nothing that it did not have."""
        pod = request.who
        pool = self._pool(request.further)
        had = pool.has(request.id)
        try:
            asked = self._asked_mac(request)
            ips = pool.allocate(request.id, request.requested_ips, request.pod_uid, request.asked_ips)
        except Exhausted as error:
            raise NetworkError(f"{error}: delete pods of {self._view.node_name}, or run them on another node") from None
        except (ValueError, Unavailable) as error:
            self._release(request)
            raise NetworkError(f"{pod}: {error}") from None
        mac = interface_mac(asked, ips)
        if holder := self._holder(mac, request):
            if not had:
                self._release(request)
            raise NetworkError(f"{pod}: MAC {mac} can't be its own: {holder} has it")
        return ips, asked

    def _asked_mac(self, request: Attachment) -> str:
        """The MAC that an attachment asks for, or has asked for; "" for none. ValueError when it can't have it."""
        asked = asked_mac(request.mac) if request.mac else ""
        sandbox = self._sandboxes.get(request.id)
        if sandbox is None:
            return asked
        kept = interface_mac(sandbox.mac, sandbox.ips)
        if asked not in ("", kept):
            raise ValueError(f"MAC {asked} is asked for, but this interface is attached with {kept}: detach it first")
        return sandbox.mac

    def _holder(self, mac: str, request: Attachment) -> str:
        """Who has a MAC on the bridge of an attachment; "" for nobody but that."""
        if request.further is None and self._view.node is not None and mac == gateway_mac(self._view.node):
            return "the pods' bridge"
        holder = self._macs.get((request.further, mac), request.id)
        return "" if holder == request.id else self._name_of(holder)

    def _pool(self, network: BridgeNetwork | None) -> NodeAddresses:
        """The addresses of a network: those of the node's blocks, or of the subnets of a further one."""
        if network is None:
            return self._addresses
        if network not in self._further:
            self._further[network] = NodeAddresses(network.subnets, self._name_of, network.name)
        return self._further[network]

    def _release(self, request: Attachment) -> None:
        """Free the addresses of what is not attached (any more); of a further network without pods nothing is kept."""
        pool = self._pool(request.further)
        if request.id not in self._sandboxes:
            pool.release(request.id)
        if request.further is not None and not pool.owners:
            del self._further[request.further]

    def _name_of(self, id_: tuple[str, str]) -> str:
        """Who is attached so, in words."""
        sandbox = self._sandboxes.get(id_)
        return " ".join(sandbox.reference) if sandbox is not None else container_of(id_)

    def _keep(self, request: Attachment, ips: tuple[str, ...], pod: str) -> None:
        """Have it remembered by whoever comes after this agent. NetworkError when it can't be."""
        try:
            self._record.attaching(request, ips)
        except OSError as error:
            self._release(request)
            what = f"it can't be kept in {error.filename}" if error.filename else "its network namespace can't be entered"
            raise NetworkError(f"{pod}: {what}: {error.strerror}") from None

    def _admit(self, request: Attachment, ips: tuple[str, ...], mac: str) -> Sandbox:
        sandbox = Sandbox(
            namespace=request.namespace,
            name=request.name,
            uid=request.pod_uid,
            container_id=request.container_id,
            netns=_netns(request),
            ips=ips,
            ifname=request.ifname,
            host_ports=request.host_ports,
            mac=mac,
            bandwidth=request.bandwidth,
            network=request.further,
        )
        self._interfaces.setdefault(sandbox.netns, {})[sandbox.ifname] = sandbox
        self._kernel.attach(sandbox.netns, request.netns)
        self._watcher.attach(veth_name(sandbox.container_id, sandbox.ifname), sandbox.netns)
        self._sandboxes[request.id] = sandbox
        self._macs[request.further, interface_mac(mac, ips)] = request.id
        if request.further is None:
            self._pods.setdefault(sandbox.path, {})[request.id] = sandbox
        self._attached[request.id] = (request, ips)
        return sandbox

    async def _apply(self, old: Sandbox | None, new: Sandbox | None) -> list[Failure]:
        """Plan what depends on an attachment that came (no old) or went (no new), and wait until it is settled."""
        concerned: dict[Identity, None] = {}
        pause = Pause()
        if new is not None:
            await self._until_peers_are_current(pause)
        for key in self._planner.keys_of(Sandbox, old, new):
            changed = await self._plan(key, pause)
            wanted = self._ledger.desired.fragment(key)
            concerned |= dict.fromkeys((*wanted, *self._contents(wanted), *changed))
            await pause()
        if self._planner.is_behind:
            self._wake()
        self._ledger.retry(concerned)
        return await self._writer.settled(concerned)

    def _contents(self, identities: Iterable[Identity]) -> Iterator[Identity]:
        """What is in the sets among these: a rule that denies lets pass whom the kernel does not have there."""
        contents = ((MEMBERS, *identity[1:]) for identity in identities if identity[0] == SET)
        return (identity for identity in contents if identity in self._ledger.desired)

    async def _until_peers_are_current(self, pause: Pause) -> None:
        """Have sets of policies' peers in the kernel as they are known by now: rules that are there already may look into them.

        For those that are still being filled only pods wait that need them.
        """
        await self._planner.catch_up(PEER_KEYS, pause)
        unsettled = self._ledger.unsettled_in(*tables.TABLE)
        peers = [one for one in unsettled if not one[4].startswith(OF_PODS) and not self._planner.is_filling(one)]
        if peers:
            await self._writer.settled(peers)

    async def _plan(self, key: Key, pause: Pause) -> list[Identity]:
        """Plan a key, after what the kernel is to have before; the identities for which that changes what is wanted.

        What changes while that is brought is not awaited: an attachment would have no end where policies change all the time.
        """
        changed = self._planner.plan_now(key)
        while (fills := self._planner.awaited(key)) and not self._planner.is_overtaken(key):
            await self._planner.fill(fills, pause)
            changed += self._planner.plan_now(key)
        return changed

    async def _try_again(self, sandbox: Sandbox, failed: list[Failure]) -> list[Failure]:
        """After refusals that contradict what is known of the kernel: somebody else changed it (a table was flushed, say), or the pod's
        objects overtook those that they depend on. Read it, and send them again."""
        for _ in range(TRIES):
            if not failed or self._sandboxes.get((sandbox.container_id, sandbox.ifname)) is not sandbox:
                break
            await self._writer.idle()
            if not await self._watcher.read_again(failed):
                break
            self._writer.wake()
            await self._writer.idle()
            failed = await self._apply(None, sandbox)
        return failed

    async def _until_it_takes_packets(self, sandbox: Sandbox) -> None:
        """Wait until no packet to the pod is lost any more, be it the first one; not for ever: a pod may have taken its address away."""
        for _ in range(round(PACKETS_SECONDS / POLL_SECONDS)):
            if self._kernel.takes_packets(sandbox.netns):
                break
            await asyncio.sleep(POLL_SECONDS)

    async def _give_up(self, sandbox: Sandbox, request: Attachment) -> None:
        """Detach what could not be attached, unless it was detached or attached once more meanwhile."""
        if self._sandboxes.get(request.id) is sandbox:
            await self.delete(request)
            if leaving := self._leaving.get(request.id):
                await asyncio.wait([leaving])

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; of one that isn't attached, nothing happens.

        No packet passes any more when this returns; the link may go later, and its addresses are free for others once none of its
        connections is tracked. Should the kernel refuse any of that, it is logged and tried again.
        """
        sandbox = self._sandboxes.pop(request.id, None)
        if sandbox is not None:
            del self._attached[request.id]
            self._resumed.discard(request.id)
            self._watcher.detach(veth_name(sandbox.container_id, sandbox.ifname))
            del self._interfaces[sandbox.netns][sandbox.ifname]
            if sandbox.network is None:
                del self._pods[sandbox.path][request.id]
                if not self._pods[sandbox.path]:
                    del self._pods[sandbox.path]
            if not self._interfaces[sandbox.netns]:
                del self._interfaces[sandbox.netns]
                self._writer.detach(sandbox.netns)
            self._detaching[request.id] = asyncio.Event()
            try:
                await self._apply(sandbox, None)
            finally:
                self._detaching.pop(request.id).set()
            if not self._sandboxes:
                self._emptied()
        if request.id not in self._sandboxes:
            self._record.detached(request.id)
            if sandbox is None:
                if request.id not in self._leaving:
                    self._release(request)
            elif sandbox.network is not None:
                self._has_left(request, sandbox)
            else:
                leaving = self._leave(request, sandbox)
                self._leaving[request.id] = asyncio.get_running_loop().create_task(leaving, name=f"leave {request.who}")

    async def _leave(self, request: Attachment, sandbox: Sandbox) -> None:
        """Once the kernel has forgotten its connections, others may have what it had."""
        try:
            await self._forgotten(list(map(address_of, sandbox.ips)))
        finally:
            del self._leaving[request.id]
            self._has_left(request, sandbox)

    def _has_left(self, request: Attachment, sandbox: Sandbox) -> None:
        self._macs.pop((sandbox.network, interface_mac(sandbox.mac, sandbox.ips)), None)
        self._release(dataclasses.replace(request, further=sandbox.network))

    async def idle(self) -> None:
        """Wait until all that is detached by now has left."""
        if self._leaving:
            await asyncio.wait(tuple(self._leaving.values()))

    async def check(self, request: Attachment) -> None:
        """NetworkError unless the pod's kernel objects are as planned (CNI CHECK): the kernel is asked."""
        pod = request.who
        sandbox = self._sandboxes.get(request.id)
        if sandbox is None:
            raise NetworkError(f"{pod} is not attached")
        await self._writer.caught_up()
        wanted = self._checked(sandbox, request.mtu)
        sysctls = [value.name for value in wanted.values() if isinstance(value, Sysctl)]
        found = dict(await asyncio.to_thread(self._kernel.read, self._watcher.ownership, sysctls))
        if self._sandboxes.get(request.id) is not sandbox:
            raise NetworkError(f"{pod} was detached meanwhile")
        found |= self._kernel.read_namespace(sandbox.netns)
        _allow_new_mtu(sandbox, wanted, found)
        faults = [fault for identity, value in wanted.items() if (fault := self._fault(identity, value, found.get(identity)))]
        if faults:
            more = f" (and {len(faults) - MOST_FAULTS} more)" if len(faults) > MOST_FAULTS else ""
            raise NetworkError(f"{pod}: {'; '.join(faults[:MOST_FAULTS])}{more}")

    def _checked(self, sandbox: Sandbox, mtu: int | None) -> dict[Identity, Value]:
        """What the kernel is to hold for a pod, and of the node what all pods need; `mtu` as `Attachment` has it.

        Sysctls of the node are set back at once, but plugins that follow may set them; those in a pod can't be read.
        """
        desired = self._ledger.desired
        of_node = desired.fragment(NodeKey(self._view.node_name)).items()
        wanted = {i: one for i, one in of_node if not isinstance(one, Sysctl) and i not in self._ledger.refused}
        for key in self._planner.keys_of(Sandbox, None, sandbox):
            wanted |= {i: one for i, one in desired.fragment(key).items() if not (isinstance(one, Sysctl) and one.netns)}
        inside = Link(netns=sandbox.netns, name=sandbox.ifname)
        near = wanted.get(Link(name=veth_name(sandbox.container_id, sandbox.ifname)).identity)
        if mtu is None and isinstance(near, Link):
            mtu = near.mtu
        if inside.identity in wanted:
            wanted[inside.identity] = msgspec.structs.replace(inside, mtu=mtu or 0)
        return wanted

    def _fault(self, identity: Identity, wanted: Value, found: Value | None) -> str:
        """What is wrong with an object of the kernel, "" for nothing."""
        if found is None:
            return f"{in_words(identity, wanted)} is missing"
        if self._kernel.matches(wanted, found):
            return ""
        return f"{in_words(identity, wanted)} {difference(wanted, found, self._kernel.matches)}"

    def find(self, id_: tuple[str, str]) -> Attached | None:
        """What an attachment got, with what is known of it now; None when it is not attached."""
        found = self._attached.get(id_)
        return None if found is None else self._described(*found)

    def attachments(self) -> Collection[Attachment]:
        """All that there are."""
        return [request for request, _ in self._attached.values()]

    def _described(self, request: Attachment, ips: tuple[str, ...]) -> Attached:
        name = veth_name(request.container_id, request.ifname)
        link = self._ledger.desired.get(Link(name=name).identity)
        return Attached(
            ips=ips,
            interface=request.ifname,
            mac=interface_mac(self._sandboxes[request.id].mac, ips),
            gateways=() if request.further is not None else tuple(self._gateway(address_of(ip)) for ip in ips),
            has_default_routes=request.further is None and self._view.has_default_routes(self._sandboxes[request.id]),
            host_interface=name,
            mtu=link.mtu if isinstance(link, Link) else 0,
        )

    def _gateway(self, ip: IPAddress) -> str:
        """Of a pod with this address."""
        gateway = gateway_for(ip, self._view.node.spec.pod_cidrs) if self._view.node is not None else None
        return str(gateway) if gateway is not None else ""

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach every pod that is not in `keep` (CNI GC). What is attached while this runs stays."""
        kept = {request.id for request in keep}
        surplus = [(id_, attached) for id_, attached in self._attached.items() if id_ not in kept]
        leaked = self._addresses.owners - kept - self._attached.keys() - self._leaving.keys()
        for id_, attached in surplus:
            if self._attached.get(id_) is attached:  # else it went, or was attached once more, while this waited
                await self.delete(attached[0])
        for owner in leaked - self._attached.keys():
            self._addresses.release(owner)


def _allow_new_mtu(sandbox: Sandbox, wanted: dict[Identity, Value], found: Mapping[Identity, Value]) -> None:
    """An MTU inside of the pod that has changed with the node's is no fault, whatever a `prevResult` of before says."""
    near = wanted.get(Link(name=veth_name(sandbox.container_id, sandbox.ifname)).identity)
    inside = found.get(Link(netns=sandbox.netns, name=sandbox.ifname).identity)
    if isinstance(near, Link) and isinstance(inside, Link) and inside.identity in wanted and inside.mtu == near.mtu:
        wanted[inside.identity] = Link(netns=inside.netns, name=inside.name, mtu=near.mtu)


def _netns(request: Attachment) -> str:
    """The name by which values speak of the pod's namespace."""
    return f"pod/{request.container_id}"


def _first(failed: list[Failure]) -> str:
    """The first failure in words, and how many more there are."""
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{failed[0].error}{more}"
