"""The backends of a node: takes over what the cluster says, tells its peers, and lets go of what nobody sends by any more.

the ConfigMap says another backend ──► the node gets its links beside the present one's; they are there ──► annotation: by both
peers say the same, one by one     ──► each is reached by the new one from then on
all of them do                     ──► GRACE_SECONDS later the former one goes
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from podplane.agent.caches import Caches
from podplane.agent.keys import NodeKey
from podplane.agent.planner import RecordEvent
from podplane.kubeapi.client import Client
from podplane.kubeapi.keeping import keep
from podplane.kubeapi.retry import FailureLog
from podplane.model.config import AGENT_PORT, AGENT_PORT_SAID, BACKENDS, UNDERLAY_MAC, UNDERLAY_MTU, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import ways
from podplane.routes.cluster_settings import PATH, ClusterSettingsError, applied
from podplane.routes.table import BY_NAME

log = logging.getLogger(__name__)
GRACE_SECONDS = 5.0
"""From when all peers can be reached by the cluster's backend until the former one goes: so long packets may be on their way, and peers
may take to hear of each other."""
AGAIN_SECONDS = 1.0
"""Between two looks whether the node has what a backend needs."""
INVALID = "InvalidNetworkSettings"


def _with(settings: NetworkConfig, backend: str, others: Iterable[str]) -> NetworkConfig:
    """The settings with this backend and former ones."""
    former = tuple(name for name in dict.fromkeys(others) if name != backend)
    return msgspec.structs.replace(settings, backend=backend, former_backends=former)


class NodeBackends:
    """Those of one node; its methods run on one event loop.

    `own` are the settings of the node itself. `configure(settings)` plans by other ones, and returns when the kernel has, or has
    refused, what the node itself needs for them; `has(name)`: are the links there that this backend needs? `underlay_mtu()` is the largest
    packet that the node takes from its peers, in bytes; `underlay_mac()` is the MAC at which they reach it, "" where they ask for it.
    """

    def __init__(
        self,
        node_name: str,
        caches: Callable[[], Caches],
        own: NetworkConfig,
        client: Client,
        record_event: RecordEvent,
        configure: Callable[[NetworkConfig], Awaitable[object]],
        has: Callable[[str], bool],
        underlay_mtu: Callable[[], int],
        underlay_mac: Callable[[], str] = str,
    ) -> None:
        self._node_name, self._caches = node_name, caches
        self._own = own
        self._client = client
        self._record_event = record_event
        self._configure, self._has = configure, has
        self._underlay_mtu, self._underlay_mac = underlay_mtu, underlay_mac
        self._wake = asyncio.Event()
        self._error = ""
        self._left_at: float | None = None
        """When all peers could be reached by the cluster's backend."""
        self.current = self._resumed(self._wanted() or applied({}, own))

    def _resumed(self, wanted: NetworkConfig) -> NetworkConfig:
        """An agent before this one may have begun a change: peers may still send by what the node says, until it has the other."""
        node = self._node
        said = (ways.reached_by(node) if node is not None else None) or frozenset()
        known = [name for name in sorted(said) if name in BY_NAME]
        chosen = wanted.backend if wanted.backend in said or not known else known[0]
        return _with(wanted, chosen, known)

    def changed(self) -> None:
        """Look again: a Node changed, or the ConfigMap."""
        self._wake.set()

    def is_about(self, node: Node) -> bool:
        """Does a change of this Node matter here? Those of others only while there is a former backend."""
        return node.metadata.name == self._node_name or bool(self.current.former_backends)

    @property
    def _node(self) -> Node | None:
        return self._caches().nodes.objects.get(self._node_name)

    async def run(self) -> None:
        """Follow what the cluster says, until cancelled."""
        await keep(self._wake, self._step, FailureLog(log, f"backends node={self._node_name}"))

    async def _step(self, now: float) -> float | None:
        """Do what is due. So many seconds later there is something to do again; None: when something changes."""
        wanted = self._wanted()
        prepares = wanted is not None and not await self._follow(wanted)
        await self._tell()
        if prepares:
            return AGAIN_SECONDS
        if not self.current.former_backends or not ways.are_left(self.current, self._caches().nodes.objects.values()):
            self._left_at = None
            return None
        if self._left_at is None:
            self._left_at = now
        if (rest := self._left_at + GRACE_SECONDS - now) > 0:
            return rest
        await self._become(_with(self.current, self.current.backend, ()))
        await self._tell()
        return None

    async def _follow(self, wanted: NetworkConfig) -> bool:
        """Take over what the cluster wants. False while the node has not got all that its backend needs: the present one goes on."""
        had = (self.current.backend, *self.current.former_backends)
        if not self._has(wanted.backend):
            await self._become(_with(wanted, self.current.backend, (wanted.backend, *had)))
        if not self._has(wanted.backend):
            return False
        await self._become(_with(wanted, wanted.backend, had))
        return True

    async def _become(self, settings: NetworkConfig) -> None:
        if settings != self.current:
            self.current = settings
            await self._configure(settings)

    async def _tell(self) -> None:
        """Say on the Node by which backends it can be reached, with which packets, at which MAC, and where this agent answers."""
        node, names = self._node, sorted(way.name for way in ways.of(self.current) if self._has(way.name))
        said: dict[str, str | None] = {BACKENDS: ",".join(names), UNDERLAY_MTU: str(self._underlay_mtu())}
        said[AGENT_PORT_SAID] = str(self.current.agent_port) if self.current.agent_port != AGENT_PORT else None
        if mac := self._underlay_mac():
            said[UNDERLAY_MAC] = mac
        if node is not None and any(node.metadata.annotations.get(key) != value for key, value in said.items()):
            body = {"metadata": {"annotations": said}}
            await self._client.patch("nodes", "", node.metadata.name, body, uid=node.metadata.uid)

    def _wanted(self) -> NetworkConfig | None:
        """The settings as the cluster wants them; None when what it says makes no sense: the last ones go on."""
        config_map = self._caches().network_settings.objects.get(PATH)
        try:
            wanted = applied((config_map.data if config_map is not None else None) or {}, self._own)
        except ClusterSettingsError as error:
            if str(error) != self._error:
                self._error = str(error)
                self._record_event(NodeKey(self._node_name), f"the ConfigMap {PATH} does not count: {error}", INVALID)
            return None
        self._error = ""
        return wanted
