"""What an agent's settings are made of beside its configuration, on this machine and in its cluster; and the agent that follows them.

    the Node's addresses, links of the machine, blocks of Nodes ── one changed ──► look ──► settings differ ──► the agent starts anew
    ServiceCIDRs ── once a minute ─────────────────────────────────────────────────┘

An agent that starts anew in the same process writes what differs, and no packet of others is lost. What can't be found any more (no link
has the Node's address, say) leaves the agent as it is, and is told. Before the first start nothing may be in the way (`machine.preflight`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from podplane.agent.settings import Settings
from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.machine import cidrs, overlaps, reverse_path, uplink
from podplane.machine.cidrs import BLOCKS, Cidrs, KeptCidrs
from podplane.machine.cluster import Cluster, Waiting, waits_for
from podplane.machine.configuration import Configuration
from podplane.machine.errors import MachineError
from podplane.machine.former import Former
from podplane.machine.overlaps import Taken
from podplane.machine.preflight import Preflight, problems
from podplane.machine.uplink import Uplink
from podplane.model.objects import Node
from podplane.routes.usable import usable
from podplane.state.value import Value

log = logging.getLogger(__name__)
SETTLE_SECONDS = 1.0
"""After a change: an address that moves is on no link for a moment."""
BETWEEN_SECONDS = 5.0
"""From one start anew to the next look: a link may come and go all the time."""
LOOK_SECONDS = 60.0
"""Between two looks without a change, and between two questions for ServiceCIDRs."""
RETRY_SECONDS = 5.0
"""From one try to find out the networks of the cluster to the next."""
NAMED_BY_NONE = (
    "waiting for the networks of pods: neither `network.cluster_cidrs` in --config FILE, nor kubeadm's ConfigMap names one"
)
NO_BLOCKS = "and no Node has a block (spec.podCIDRs)"
SEVERAL = "and the blocks of Nodes (spec.podCIDRs) are of several, or wider than /8 (IPv6: /32), and tell none for this Node"


class Surroundings:
    """Of the machine whose kernel has `values()`; its methods run on one event loop, `values` in another thread."""

    def __init__(
        self,
        configuration: Configuration,
        values: Callable[[], Iterable[Value]],
        client: Client,
        cluster: Cluster,
        waiting: Waiting,
        kept: KeptCidrs,
        tell: Callable[[str], None],
        sysctls: Callable[[Iterable[str]], Mapping[str, str]] = lambda names: {},
        former: Former | None = None,
        preflight: Preflight | None = None,
    ) -> None:
        """`kept` has what was found last, `tell` is told what can't be found any more, `sysctls` reads those of the machine, in another
        thread; `former` is the network that the machine is migrated from, and `preflight` looks for what is in the way."""
        self._configuration = configuration
        self._values = values
        self._client = client
        self._cluster = cluster
        self._waiting = waiting
        self._tell = tell
        self._kept = kept
        self._cidrs = Cidrs()
        self._is_kept = False
        """Are these what an agent before this one found?"""
        self._asked_at = -LOOK_SECONDS
        """When the networks of Services were asked for last, in seconds of the loop's clock."""
        self._settings: Settings | None = None
        self._warned: list[str] = []
        self._said = ""
        """Of the networks of the cluster, in the log."""
        self._sysctls = sysctls
        self._former = former or Former("")
        self._preflight = preflight
        self._of_nodes: tuple[Taken, ...] = ()
        """Networks that are no Node's block, as they were at the last look."""
        self._filters: list[str] = []
        """What the filter of reverse paths drops, as it was at the last look."""
        self.in_the_way: list[str] = []
        """What was in the way of the agent at the last look, though it runs."""
        self._changed = asyncio.Event()

    @property
    def without(self) -> list[str]:
        """What the machine keeps from its node, as it was at the last look."""
        return [*self.in_the_way, *self._filters]

    async def settings(self) -> Settings:
        """Those that the agent begins with, once its Node and the networks of the cluster are known, and nothing is in the way."""
        self._cluster.caches.nodes.subscribe(self._node_changed)
        pause = RETRY_SECONDS
        while True:
            try:
                self._settings, why = await self.proposed(await self._cluster.node())
            except MachineError as error:
                why = [str(error)]
            if self._settings is not None and not why:
                return self._settings
            self._waiting.hindered(*why)
            await self._change_within(pause)
            pause = min(2 * pause, LOOK_SECONDS)

    async def _change_within(self, seconds: float) -> bool:
        """Wait for a change of what settings are made of, so long at most; was there one?"""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        await asyncio.sleep(SETTLE_SECONDS)
        self._changed.clear()
        return True

    async def proposed(self, node: Node) -> tuple[Settings, Sequence[str]]:
        """Settings, and what is in the way of a first start with them. MachineError without an uplink, or when another machine has the
        Node."""
        uplink, values = await self._read(node)
        if self._configuration.needs_cidrs and await self._find_cidrs():
            uplink, values = await self._read(node)  # meanwhile the machine may be another
        if self._preflight is not None and (why := await self._preflight.one.problem(node, values)):
            raise MachineError(why)
        made = await self._without_strays(self._made(uplink), node)
        found, may_begin = await self._look_around(made, node, values)
        if may_begin:
            self._tell_in_the_way(found)
            return made, ()
        return made, found

    async def _without_strays(self, made: Settings, node: Node) -> Settings:
        """Without blocks of other Nodes that can't be any Node's."""
        others = [block for block in self._blocks() if block not in node.spec.pod_cidrs]
        found = await asyncio.to_thread(self._strays, others, made.network.cluster_cidrs)
        network = msgspec.structs.replace(made.network, left_out=tuple(sorted(found.items())))
        return msgspec.structs.replace(made, network=network)

    def _strays(self, blocks: Iterable[str], clusters: Iterable[str]) -> dict[str, str]:
        """Those of these blocks that overlap the network between nodes, or are, where the networks of pods are made of blocks, of another
        network; and why."""
        apart = cidrs.apart(blocks, clusters) if self._counts_blocks else {}
        return apart | overlaps.strays(blocks, self._of_nodes)

    @property
    def _counts_blocks(self) -> bool:
        """Are the networks of pods made of blocks?"""
        return not self._configuration.names_cluster and self._cidrs.cluster_from == BLOCKS

    def _blocks(self) -> Collection[str]:
        """Of all Nodes."""
        return dict.fromkeys(
            block for one in self._cluster.caches.nodes.objects.values() for block in one.spec.pod_cidrs
        ).keys()

    def _counted(self, blocks: Collection[str]) -> Iterable[str]:
        """Those of which the networks of pods are made."""
        own = self._own_blocks()
        strays = overlaps.strays((one for one in blocks if one not in own), self._of_nodes)
        return (one for one in blocks if one not in strays)

    async def _look_around(self, made: Settings, node: Node, values: Iterable[Value]) -> tuple[list[str], bool]:
        """What is in the way, and whether the agent may begin all the same: the network of the node is in place, and fits its blocks."""
        outside = self._configuration.outside(node.spec.pod_cidrs)
        if self._preflight is None:
            return outside, not outside
        pods = tuple(self._pods(made))
        former = pods if self._configuration.migrate_from else ()  # its links and routes are of the same addresses
        facts = await self._preflight.look(made.network, pods, node, values, (*self._configuration.allow_overlaps, *former))
        return await asyncio.to_thread(
            lambda: ([*outside, *problems(facts)], facts.is_in_place and not outside)
        )  # of thousands of blocks it is long for a turn

    def _pods(self, made: Settings) -> Iterable[str]:
        """The networks of pods; where they are made of blocks: the own ones, and those of other Nodes that are not left out."""
        if not self._counts_blocks:
            return made.network.cluster_cidrs
        nodes = self._cluster.caches.nodes.objects
        others = (usable(one, made.network).node for name, one in nodes.items() if name != self._cluster.node_name)
        return dict.fromkeys((*self._own_blocks(), *(block for one in others for block in one.spec.pod_cidrs)))

    def _tell_in_the_way(self, found: list[str]) -> None:
        for line in (one for one in found if one not in self.in_the_way):
            log.warning("%s", line)
            self._tell(line)
        self.in_the_way = found

    async def _find_cidrs(self) -> bool:
        """Find the networks of the cluster; had they to be waited for?"""
        has_waited = False
        while True:
            if self._client.contact is None and self._recall():
                break  # the agent began with what was known: an API that is away would be waited for until the question times out
            try:
                await self._ask_for_cidrs()
            except ApiError as error:
                if self._recall():
                    break
                self._waiting.says(waits_for(error))
            else:
                if self._is_enough(self._cidrs):
                    break
                self._waiting.hindered(f"{NAMED_BY_NONE}, {SEVERAL if self._blocks() else NO_BLOCKS}")
            has_waited = True
            await asyncio.sleep(RETRY_SECONDS)
        if (said := " and ".join(self._unnamed())) != self._said:
            self._said = said
            log.warning("networks that the configuration does not name: %s", said)
        return has_waited

    def _recall(self) -> bool:
        """Have what was found last; False when nothing was, or too little."""
        if (kept := self._kept.load()) is None or not self._is_enough(kept):
            return False
        self._cidrs, self._is_kept = kept, True
        return True

    def _is_enough(self, found: Cidrs) -> bool:
        """To begin with."""
        return self._configuration.names_cluster or bool(found.cluster)

    def _own_blocks(self) -> tuple[str, ...]:
        own = self._cluster.caches.nodes.objects.get(self._cluster.node_name)
        return own.spec.pod_cidrs if own is not None else ()

    def _unnamed(self) -> Iterator[str]:
        if not self._configuration.names_cluster:
            yield self._cidrs.of_pods
        if not self._configuration.names_services:
            yield self._cidrs.of_services

    async def _ask_for_cidrs(self) -> None:
        kept = self._kept.load() or Cidrs()
        found = await cidrs.find(self._client, self._counted(self._blocks()), self._own_blocks(), kept.cluster)
        self._asked_at = asyncio.get_running_loop().time()
        if self._is_enough(found):
            self._cidrs, self._is_kept = found, False
            self._kept.save(found)

    async def _ask_for_ranges(self) -> None:
        """The networks of Services again, but once in a while: a cluster may get more of them at any time (KEP-1880)."""
        now = asyncio.get_running_loop().time()
        if self._configuration.names_services or now - self._asked_at < LOOK_SECONDS:
            return
        self._asked_at = now
        found = await cidrs.with_ranges(self._client, self._cidrs)
        if found != self._cidrs:
            self._cidrs = found
            self._kept.save(found)

    def _made(self, found: Uplink) -> Settings:
        warnings = self._configuration.warnings(found)
        for warning in (one for one in warnings if one not in self._warned):
            log.warning("%s", warning)
            self._tell(warning)
        self._warned = warnings
        return self._configuration.settings(found, self._cidrs, has_former=self._former.ports is not None)

    async def _read(self, node: Node) -> tuple[Uplink, list[Value]]:
        """The uplink, and what the kernel of the machine holds."""
        values = list(await asyncio.to_thread(self._values))
        return await self._uplink(node, values), values

    async def _uplink(self, node: Node, values: Sequence[Value]) -> Uplink:
        name = self._configuration.features.get("network", {}).get("uplink", "")
        peers = [(one.metadata.name, ip) for one in self._cluster.caches.nodes.objects.values() for ip in one.internal_ips]

        def look() -> tuple[Uplink, list[str]]:
            self._former.look(values)
            found = uplink.find(values, node.internal_ips, name)
            if self._preflight is not None:
                around = self._preflight.around(found.name, node, values, self._configuration.allow_overlaps)
                self._of_nodes = overlaps.of_nodes(around)
            filters = self._sysctls(reverse_path.sysctls(found.name))
            others = (one for one in peers if one[0] != node.metadata.name)
            return found, reverse_path.dropped(values, filters, found.name, others)

        found, self._filters = await asyncio.to_thread(look)
        return found

    def changed(self) -> None:
        """Something of the machine's links changed: look again, soon."""
        self._changed.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        one = new or old
        if one is None:
            return
        is_own = one.metadata.name == self._cluster.node_name
        if (is_own and _differs(old, new)) or (_blocks_differ(old, new) and self._is_outside(new)):
            self._changed.set()

    def _is_outside(self, node: Node | None) -> bool:
        """Has it a block of which the network of pods is not known yet, or that is to be left out and is not?"""
        if node is None:
            return False
        blocks = node.spec.pod_cidrs
        return self._wider(blocks) != self._cidrs.cluster or (
            node.metadata.name != self._cluster.node_name and self._is_stray(blocks)
        )

    def _is_stray(self, blocks: Collection[str]) -> bool:
        known = dict(self._settings.network.left_out) if self._settings is not None else {}
        return not self._strays(blocks, self._cidrs.cluster).keys() <= known.keys()

    def _wider(self, blocks: Collection[str]) -> tuple[str, ...]:
        """The networks of pods when there are these blocks, too."""
        if not self._configuration.needs_cidrs or self._cidrs.cluster_from != BLOCKS:
            return self._cidrs.cluster
        known = (*self._cidrs.cluster, *self._own_blocks())
        return cidrs.covering((*known, *self._counted(blocks)), known)

    async def follow(self, restart: Callable[[Settings], Awaitable[object]]) -> None:
        """Start the agent anew whenever its settings are others, until cancelled."""
        told = ""
        while True:
            await self._change_within(LOOK_SECONDS)
            try:
                told = await self._look(restart, told)
            except BaseException:
                self._changed.set()
                raise

    async def _look(self, restart: Callable[[Settings], Awaitable[object]], told: str) -> str:
        """What is in the way, once it was told; "" for nothing."""
        node = self._cluster.caches.nodes.objects.get(self._cluster.node_name)
        if node is None or not node.internal_ips:
            return told
        try:
            uplink, values = await self._read(node)
            await self._follow_cidrs()
            wanted = await self._without_strays(self._made(uplink), node)
            found, _ = await self._look_around(wanted, node, values)
            self._tell_in_the_way(found)
        except MachineError as error:
            if str(error) != told:
                log.warning("uplink: %s", error)
                self._tell(f"the agent goes on with uplink {self._settings.network.uplink if self._settings else ''}: {error}")
            return str(error)
        if wanted != self._settings:
            log.warning("starts anew: %s", _differences(self._settings, wanted))
            await restart(wanted)
            self._settings = wanted
            await asyncio.sleep(BETWEEN_SECONDS)
        return ""

    async def _follow_cidrs(self) -> None:
        with contextlib.suppress(ApiError):  # it is asked again at a later look
            await (self._ask_for_cidrs() if self._is_kept else self._ask_for_ranges())
        wider = await asyncio.to_thread(self._wider, self._blocks())  # thousands of blocks are long for a turn
        if wider != self._cidrs.cluster:
            self._cidrs = msgspec.structs.replace(self._cidrs, cluster=wider)
            self._kept.save(self._cidrs)


def _blocks_differ(old: Node | None, new: Node | None) -> bool:
    return old is None or new is None or old.spec.pod_cidrs != new.spec.pod_cidrs


def _differs(old: Node | None, new: Node | None) -> bool:
    """In what the agent's settings depend on, or are compared with?"""
    if old is None or new is None:
        return True
    return (old.internal_ips, old.spec.pod_cidrs) != (new.internal_ips, new.spec.pod_cidrs)


def _differences(old: Settings | None, new: Settings) -> str:
    before = msgspec.structs.asdict(old.network) if old is not None else {}
    now = msgspec.structs.asdict(new.network)
    return ", ".join(f"{name} is {value}, was {before.get(name)}" for name, value in now.items() if before.get(name) != value)
