"""What an agent would do on this machine, and what it would refuse: everything is read and planned as ever, and nothing is changed.

    API, machine ──► settings, `preflight` ──► the agent plans ──► a door that takes notes in place of changing the kernel ──► lines

What it keeps in files meanwhile is in a folder of its own, which goes. Nothing is written to the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from podplane.agent.agent import Agent
from podplane.agent.caches import KEPT
from podplane.agent.settings import Settings
from podplane.kernel import legacy_iptables
from podplane.kernel.door import Kernel
from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import CurrentNamespace, Workers
from podplane.kernel.nft.others import Tables
from podplane.kernel.opener import KernelOpener
from podplane.kernel.sysctl import read_here
from podplane.kubeapi.access import Access
from podplane.kubeapi.client import Client
from podplane.kubeapi.supervise import Supervisor
from podplane.kubeapi.transport import HttpTransport
from podplane.machine import capabilities
from podplane.machine.alone import agent_here
from podplane.machine.beside import Asked, asked_of, firewalls_of
from podplane.machine.cidrs import KeptCidrs
from podplane.machine.cluster import Cluster, Waiting
from podplane.machine.configuration import Configuration
from podplane.machine.errors import MachineError
from podplane.machine.host import MachineHost
from podplane.machine.journal import Journal
from podplane.machine.known import KnownCluster, Whose
from podplane.machine.one_machine import OneMachine, own_id
from podplane.machine.preflight import Preflight
from podplane.machine.surroundings import Surroundings
from podplane.routes.cluster_settings import PATH, ClusterSettingsError, applied
from podplane.state.conntrack import Allowed
from podplane.state.network import Address, Link, Route, Sysctl
from podplane.state.operations import Operation, Report
from podplane.state.value import IPAddress
from podplane.state.words import in_words

PATIENCE_SECONDS = 15.0
"""So long the API has to answer, and the Node to be there."""
SAID = (Link, Address, Route, Sysctl)
"""Of these kinds each object has a line of its own, up to `MOST` of them; of others they are counted."""
MOST = 40
JOURNAL = "attachments.journal"


class Outcome(msgspec.Struct):
    """Lines, and whether the agent would refuse to begin."""

    lines: list[str]
    is_refused: bool


class Notes(Kernel):
    """A door that changes nothing: what it was to do is in `operations`, and said to be done."""

    def __init__(self, namespace: CurrentNamespace, opener: KernelOpener) -> None:
        super().__init__(namespace, opener)
        self.operations: list[Operation] = []

    def apply(self, operations: Sequence[Operation]) -> Report:
        """Take notes."""
        self.operations += operations
        return Report(applied=list(operations))

    def steps(self, operations: Sequence[Operation]) -> Iterator[Report]:
        """Take notes."""
        yield self.apply(operations)

    def remove_links(self, operations: Sequence[Operation]) -> Report:
        """Take notes."""
        return self.apply(operations)

    def prolong(self, family: str, table: str, name: str, key: bytes, milliseconds: int) -> None:
        """Nothing."""

    def announce(self, link: str, ips: Iterable[IPAddress]) -> None:
        """Nothing."""

    def flush_conntrack(self, allowed: Allowed) -> int:
        """Nothing."""
        return 0

    def judge_again(self, ips: Collection[IPAddress]) -> int:
        """Nothing."""
        return 0

    def end_revoked(self, namespaces: Mapping[IPAddress, str]) -> int:
        """Nothing."""
        return 0

    def forget_connections(self, ips: Collection[IPAddress]) -> int:
        """Nothing."""
        return 0


def dry_run(access: Access, node_name: str, configuration: Configuration) -> Outcome:
    """Do it, in the network namespace of this process. MachineError when this process may not even read what it has to."""
    capabilities.prepare(configuration.sysctl_dir)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_Try(access, node_name, configuration, Path(folder)).run())


class _Try:
    """One try, with a folder of its own."""

    def __init__(self, access: Access, node_name: str, configuration: Configuration, folder: Path) -> None:
        self._access, self._node_name, self._configuration, self._folder = access, node_name, configuration, folder
        self._waiting = Waiting(lambda text: None)

    async def run(self) -> Outcome:
        supervisor, transport = Supervisor(), HttpTransport(self._access)
        try:
            return await self._outcome(transport, supervisor)
        finally:
            await supervisor.close()
            await transport.close()

    async def _outcome(self, transport: HttpTransport, supervisor: Supervisor) -> Outcome:
        client = Client(transport, "")
        whose = Whose.of(self._node_name, self._access)
        cluster = Cluster(client, supervisor, self._node_name, self._waiting, KnownCluster(self._folder, whose, KEPT))
        host = MachineHost(self._journal(), Workers(1))
        surroundings = self._surroundings(client, cluster, host, whose, lambda: transport.skew)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await cluster.known()
                node = await cluster.node()
                settings, why = await surroundings.proposed(node)
        except TimeoutError:
            return Outcome([f"refused: {self._waiting.reason}"], is_refused=True)
        except MachineError as error:
            return Outcome([f"refused: {error}"], is_refused=True)
        lines = [*self._about(settings, cluster), *(f"refused: {line}" for line in why)]
        if not why:
            lines += await self._planned(settings, cluster, host)
        return Outcome(lines, is_refused=bool(why))

    def _journal(self) -> Journal:
        """A copy of the one of an agent before, for what is attached."""
        copy = self._folder / JOURNAL
        with contextlib.suppress(OSError):
            shutil.copyfile(Path(self._configuration.run_dir) / JOURNAL, copy)
        return Journal(copy)

    def _surroundings(
        self, client: Client, cluster: Cluster, host: MachineHost, whose: Whose, skew: Callable[[], float]
    ) -> Surroundings:
        found = self._configuration
        one = OneMachine(client, cluster.caches.nodes.objects, self._node_name, own_id())
        preflight = Preflight(host.namespace, client, one, found.run_dir, found.checked_conf_dir, self._access.host, skew)
        kept = KeptCidrs(self._folder, whose)
        return Surroundings(
            found, host.values, client, cluster, self._waiting, kept, lambda why: None, read_here, preflight=preflight
        )

    def _about(self, settings: Settings, cluster: Cluster) -> Iterator[str]:
        node, network = cluster.caches.nodes.objects[self._node_name], settings.network
        blocks = ", ".join(node.spec.pod_cidrs) or "none yet: no pod can be attached before it has one"
        yield f"Node {self._node_name}: {', '.join(node.internal_ips)} on {network.uplink}, blocks {blocks}"
        yield f"networks of pods {', '.join(network.cluster_cidrs) or 'none'}, of Services {', '.join(network.service_cidrs) or 'none'}"
        try:
            routes = self._routes(settings, cluster)
        except ClusterSettingsError as error:
            yield f"the ConfigMap {PATH} does not count: {error}"
        else:
            yield f"backend {routes.network.backend}"
        if pid := agent_here():
            yield f"an agent runs here already (process {pid})"

    def _routes(self, settings: Settings, cluster: Cluster) -> Settings:
        """With what the cluster says of its routes."""
        config_map = cluster.caches.network_settings.objects.get(PATH)
        found = applied((config_map.data if config_map is not None else None) or {}, settings.network)
        return msgspec.structs.replace(settings, network=found)

    async def _planned(self, settings: Settings, cluster: Cluster, host: MachineHost) -> list[str]:
        with contextlib.suppress(ClusterSettingsError):
            settings = self._routes(settings, cluster)
        kernel = Notes(CurrentNamespace(), KernelOpener())
        try:
            agent = Agent(self._node_name, settings, kernel, cluster.caches)
            await agent.start(host.attached())
            await agent.stop()
        except (KernelError, OSError) as error:
            return [f"refused: {error}"]
        finally:
            kernel.close()
        packets = f"packets of at most {agent.config.mtu} bytes between nodes"
        beside = asked_of(self._node_name, cluster.caches.nodes.objects, agent.config, settings.dns.ips)
        return [packets, *_of_firewalls(beside), *described(kernel.operations)]


def _of_firewalls(asked: Asked) -> list[str]:
    """What those of the machine would do to packets of pods."""
    here = CurrentNamespace()
    try:
        with Tables(here) as tables:
            lines = firewalls_of(tables, legacy_iptables.read(here), asked)
    except (KernelError, OSError) as error:
        return [f"firewall: its tables can't be read: {error}"]
    return [f"firewall: {line}" for line in lines]


def described(operations: Sequence[Operation]) -> Iterator[str]:
    """What operations would do, a line each, and how many of the kinds of which there are many."""
    if not operations:
        yield "nothing would be changed: the network of this node is as it is to be"
    said = [one for one in operations if isinstance(one.value, SAID) and not one.value.netns]
    for one in said[:MOST]:
        yield f"would {_verb(one)} {_object(one)}"
    rest = Counter(f"would {_verb(one)} {{}} x {one.value.identity[0]}" for one in operations if one not in said[:MOST])
    yield from (text.format(count) for text, count in sorted(rest.items()))


def _verb(operation: Operation) -> str:
    if isinstance(operation.new, Sysctl):
        return "set"
    return "remove" if operation.new is None else "create" if operation.old is None else "change"


def _object(operation: Operation) -> str:
    value = operation.value
    return f"sysctl {value.name} to {value.value}" if isinstance(value, Sysctl) else in_words(value.identity, value)
