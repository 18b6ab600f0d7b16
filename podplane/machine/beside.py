"""What others have in the kernel beside podplane, and what that does to it: firewalls that drop what pods send, and kube-proxy.

    every LOOK_SECONDS ──► tables of others ──► lines for the node's state; an event for each line that is new
                                            └─► kube-proxy's, if it is gone and somebody said so (`clean_kube_proxy`): removed

kube-proxy is gone when nothing tells of it at two looks in a row: one that is only started anew keeps its tables.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from podplane.agent.ownership import ownership
from podplane.kernel import legacy_iptables
from podplane.kernel.errors import KernelError
from podplane.kernel.legacy_iptables import LegacyTable
from podplane.kernel.namespace import Namespace
from podplane.kernel.nft.others import Tables
from podplane.machine import firewall_remedies, firewalls, kube_proxy
from podplane.machine.firewalls import TooManyError, Way
from podplane.machine.kube_proxy import Left
from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.model.pod_info import PodInfo
from podplane.state.ownership import Ownership

log = logging.getLogger(__name__)
LOOK_SECONDS = 30.0
CLEAN = "podplane agent clean-kube-proxy"
TO_CLEAN = f"`{CLEAN}` on the node, or `clean_kube_proxy: true` in its agent's configuration, removes them"
BY_ITSELF = "`kube-proxy --cleanup`, of the version that made it, removes it"


class Asked(NamedTuple):
    """What a look is about: the ways of packets, the settings, what is podplane's own, and the pods of the cluster."""

    ways: Sequence[Way]
    config: NetworkConfig
    owned: Ownership
    pods: Sequence[PodInfo]


def asked_of(
    name: str, nodes: Mapping[str, Node], config: NetworkConfig, names: Iterable[str], pods: Iterable[PodInfo] = ()
) -> Asked:
    """A look on the Node of this name, which is among `nodes`, and whose name server has the addresses `names`."""
    peers = [node for other, node in nodes.items() if other != name]
    return Asked(tuple(firewalls.ways(nodes[name], peers, config, names)), config, ownership(config), tuple(pods))


def firewalls_of(tables: Tables, legacy: Sequence[LegacyTable], asked: Asked) -> list[str]:
    """A line for each chain of others that drops packets of pods, or may; of a very large firewall, of legacy iptables alone."""
    try:
        found = firewalls.suspects(tables, asked.owned.tables, asked.ways)
    except TooManyError:
        found = []
    return firewall_remedies.sentences(found, legacy, asked.config)


class Seen(NamedTuple):
    """What a look brought: lines about firewalls; what there is of kube-proxy, by what one sees that it runs; what was removed of it, or
    why that could not be."""

    firewalls: tuple[str, ...] = ()
    left: Left = Left()
    why_runs: str = ""
    removed: str = ""
    refused: str = ""


class Beside:
    """Of the machine with this network namespace; `run` is on the event loop, looks are in other threads.

    `ask` says what a look is about, None while it can't be said; `serves`: does podplane serve Services here; `clean`: is what kube-proxy
    left to be removed; `links` are the names of the machine's links; `tell` is told what is new.
    """

    def __init__(
        self,
        namespace: Namespace,
        node_name: str,
        ask: Callable[[], Asked | None],
        links: Callable[[], Iterable[str]],
        tell: Callable[[str], None],
        *,
        serves: bool,
        clean: bool,
    ) -> None:
        self._namespace, self._node_name = namespace, node_name
        self._ask, self._links, self._tell = ask, links, tell
        self._serves, self._clean = serves, clean
        self._was_gone = False
        self._looked: tuple[object, tuple[Left, list[str]]] | None = None
        """What the last look was about, and what it found: nothing is read again while nobody committed anything."""
        self.without: list[str] = []
        """What is wrong, a line each, as of the last look."""

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            if (asked := self._ask()) is not None:
                self._heard(await asyncio.to_thread(self.look, asked))
            await asyncio.sleep(LOOK_SECONDS)

    def _heard(self, seen: Seen) -> None:
        about = about_proxy(seen, serves=self._serves)
        lines = [*seen.firewalls, *([about] if about else []), *([seen.refused] if seen.refused else [])]
        for line in lines:
            if line not in self.without:
                log.warning("%s", line)
                self._tell(line)
        if seen.removed:
            log.warning("kube-proxy is gone: removed %s", seen.removed)
            self._tell(f"kube-proxy is gone, and what it left is removed: {seen.removed}")
        self.without = lines

    def look(self, asked: Asked) -> Seen:
        """Once. What can't be read isn't told: whoever may not read it is told so at the agent's start."""
        try:
            legacy = legacy_iptables.read(self._namespace)
            with Tables(self._namespace) as tables:
                found, lines = self._found(tables, legacy, asked)
                why = self._why_runs(asked.pods) if found or not self._serves else ""
                return Seen(tuple(lines), *self._cleaned(tables, found, why))
        except (KernelError, OSError) as error:
            log.warning("tables of others can't be read: %s", error)
            return Seen()

    def _found(self, tables: Tables, legacy: Sequence[LegacyTable], asked: Asked) -> tuple[Left, list[str]]:
        links = list(self._links())
        about = (tables.generation, legacy, asked.ways, asked.config, links)
        if self._looked is None or self._looked[0] != about:
            found = kube_proxy.left(tables, legacy, links)
            self._looked = about, (found, firewalls_of(tables, legacy, asked))
        return self._looked[1]

    def _why_runs(self, pods: Iterable[PodInfo]) -> str:
        name = next((one.metadata.name for one in pods if is_of_proxy(one, self._node_name)), "")
        return f"its pod {name}" if name else kube_proxy.why_runs()

    def _cleaned(self, tables: Tables, found: Left, why: str) -> tuple[Left, str, str, str]:
        is_gone = bool(found) and not why
        if not (self._serves and self._clean and is_gone and self._was_gone and found.can_be_removed):
            self._was_gone = is_gone
            return found, why, "", ""
        try:
            kube_proxy.remove(tables, found)
        except KernelError as error:  # somebody else's chain leads to one of kube-proxy's, say
            return found, why, "", f"what kube-proxy left can't be removed: {error}"
        return Left(unreached=found.unreached), why, ", ".join(found.removable_words()), ""


def is_of_proxy(pod: PodInfo, node_name: str) -> bool:
    """Is it kube-proxy's on this node? kubeadm's and others' are so named: as a DaemonSet, or as a static pod."""
    place = (pod.node, pod.metadata.namespace)
    return place == (node_name, "kube-system") and pod.metadata.name.startswith(kube_proxy.NAME) and not pod.has_ended


def about_proxy(seen: Seen, *, serves: bool) -> str:
    """What is wrong about kube-proxy on a node; "" when nothing is."""
    if serves and seen.why_runs:
        return (
            f"kube-proxy runs here ({seen.why_runs}), and podplane serves Services, too: end it (kubectl -n kube-system delete daemonset "
            "kube-proxy), or leave Services to it (services.enabled: false)"
        )
    if serves and seen.left:
        how = [TO_CLEAN] if seen.left.can_be_removed else []
        how += [BY_ITSELF] if seen.left.unreached else []
        return f"kube-proxy is gone and left {seen.left}, so packets to Services may go where nothing answers: {'; '.join(how)}"
    if not serves and not seen.why_runs and not seen.left:
        return "Services are left to kube-proxy (services.enabled: false), and there is none here: they lead nowhere"
    return ""
