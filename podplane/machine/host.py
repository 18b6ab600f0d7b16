"""The machine that an agent's process runs on (`agent.host.Host`): its own network namespace, and a journal of what is attached."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Sequence

from podplane.agent.attachments import AttachedPod
from podplane.cni.network import Attachment
from podplane.kernel import netlink
from podplane.kernel.door import Kernel as KernelDoor
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import NETLINK_ROUTE, KernelOpener, leads_into, passed_of
from podplane.kernel.rtnl import reading
from podplane.machine.errors import MachineError
from podplane.machine.fd_store import FdStore
from podplane.machine.journal import Id, Journal, Kept
from podplane.machine.originals import KeptSysctls
from podplane.model.words import counted
from podplane.pods.plan import veth_name
from podplane.state.operations import LinkEvent
from podplane.state.value import Value

log = logging.getLogger(__name__)
OWN = "node"
"""The node's namespace, when all of it is read."""


class MachineHost:
    """The machine; its methods run on one event loop."""

    def __init__(self, journal: Journal, workers: Workers, store: FdStore | None = None) -> None:
        """`store` keeps what was opened in pods' namespaces for the agent after this one, where that can't enter them. MachineError when
        no namespace is seen from here though there are pods."""
        self._namespace = CurrentNamespace()
        self._opener = KernelOpener(protects_tables=True)
        self._kernel: KernelDoor | None = None
        self._journal = journal
        self._workers = workers
        self._store = None if workers.may_enter else store
        self.found: dict[Id, NetworkNamespace] = {}
        """The namespaces of what was attached when this agent started, each once: further interfaces of a pod are in that of its own. Who
        serves the runtime lets go of them."""
        self._namespaces: dict[tuple[str, str], NetworkNamespace] = {}
        self._attached = self._reopened()
        self.present: Callable[[], Iterable[AttachedPod]] | None = None
        """What the agent of this process has attached, once there is one."""
        self.links_changed: Callable[[], None] = lambda: None

    @property
    def namespace(self) -> Namespace:
        """That of this process."""
        return self._namespace

    def open_kernel(self) -> KernelDoor:
        """Another door, which knows what sysctls were before podplane came; the former one is closed, for it owned the tables."""
        if self._kernel is not None:
            self._kernel.close()
        self._kernel = KernelDoor(self._namespace, self._opener, KeptSysctls(self._journal))
        return self._kernel

    def values(self) -> Iterable[Value]:
        """All links, addresses and routes of the machine but those that the kernel made itself."""
        kernel = KernelDoor(self._namespace, self._opener)
        try:
            kernel.attach(OWN, self._namespace)
            return kernel.read_namespace(OWN).values()
        finally:
            kernel.close()

    def attached(self) -> Iterable[AttachedPod]:
        """What the agent of this process has attached; before there is one, what the journal says, where the namespace is still there."""
        return self._attached if self.present is None else self.present()

    def last_ips(self) -> tuple[str, ...]:
        """As the journal has it."""
        return self._journal.last

    def _reopened(self) -> list[AttachedPod]:
        attachments = tuple(self._journal.attachments.values())
        self._check_sight(attachments)
        found = [one for kept in attachments if (one := self._reopen(kept)) is not None]
        if self._store is not None:
            self._store.close_rest()
        return found

    def _reopen(self, kept: Kept) -> AttachedPod | None:
        """With its namespace; None when that is gone, and then it is not attached any more."""
        place = (kept.attach.container_id, kept.attach.netns_path)
        namespace = self._namespaces.get(place)
        if namespace is None:
            try:
                namespace = self._opened(kept)
            except OSError as error:
                self._gone(kept, f"{place[1]}: {error.strerror}")
                return None
            self._namespaces[place] = self.found[kept.id] = namespace
        if self._store is not None:
            self._store.restore(kept.id, namespace, kept.cookie)
        return kept.attachment(namespace), kept.ips

    def _check_sight(self, attachments: Sequence[Kept]) -> None:
        """MachineError when all paths lead nowhere though links of the node have far ends elsewhere: a container sees the machine's
        namespaces only where their folder is mounted. To take the pods for gone would cut them off."""
        if not attachments or any(os.path.exists(one.attach.netns_path) for one in attachments):
            return
        links = (veth_name(*one.id) for one in attachments)
        with self._namespace.run(netlink.Socket, NETLINK_ROUTE) as socket:
            is_alive = any(reading.peer_namespace_id(socket, link) is not None for link in links)
        if is_alive:
            folder = os.path.dirname(attachments[0].attach.netns_path)
            raise MachineError(
                f"no network namespace of the {counted(len(attachments), 'interface')} of pods is seen from here: mount the machine's "
                f"{folder} at the same place, with mountPropagation: HostToContainer in a pod"
            )

    def _opened(self, kept: Kept) -> NetworkNamespace:
        """Its namespace opened again. OSError when that is gone, or another one has its path."""
        namespace = NetworkNamespace.open(kept.attach.netns_path, self._workers)
        try:
            if os.path.sameopenfile(namespace.fd, self._namespace.fd):
                raise FileNotFoundError(errno.ENOENT, "it is the node's own")
            if self._is_another(kept, namespace):
                raise FileNotFoundError(errno.ENOENT, "it is another namespace by now")
        except OSError:
            namespace.close()
            raise
        return namespace

    def _is_another(self, kept: Kept, namespace: NetworkNamespace) -> bool:
        """Is it not the one that was attached? Where it can't be entered to read its number, the link of the node tells. OSError when it
        is none at all."""
        if self._workers.may_enter:
            return bool(kept.cookie) and namespace.cookie != kept.cookie
        return leads_into(self._namespace, veth_name(*kept.id), namespace) is False

    def _gone(self, kept: Kept, why: str) -> None:
        one = kept.attach
        log.warning(
            "detached pod=%s/%s container=%s its network namespace is gone: %s", one.namespace, one.name, kept.id[0], why
        )
        self.detached(kept.id)

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """It is in the journal when this returns."""
        namespace = request.netns
        self._journal.attach(request, ips, _cookie(namespace))
        if self._store is not None and (passed := passed_of(namespace)) is not None:
            self._store.keep(request.id, passed)

    def detached(self, id_: Id) -> None:
        """It is gone in the journal, too. What can't be written there is found to be gone by the next agent, with its namespace."""
        if self._store is not None:
            self._store.drop(id_)
        try:
            self._journal.detach(id_)
        except OSError as error:
            log.warning("journal path=%s error=%s", error.filename, error.strerror)

    def link_changed(self, name: str, event: LinkEvent) -> None:
        """Who configures the machine's network sees to its links."""
        log.info("link name=%s present=%s up=%s", name, event.is_present, event.is_up)
        self.links_changed()


def _cookie(namespace: Namespace) -> int:
    """The kernel's number of a namespace; 0 for one that can't be asked for it."""
    return namespace.cookie if isinstance(namespace, NetworkNamespace) and namespace.is_within_reach else 0
