"""The machine that an agent's process runs on (`agent.host.Host`): its own network namespace, and a journal of what is attached."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from podplane.agent.attachments import AttachedPod
from podplane.agent.kernel import Kernel
from podplane.cni.network import Attachment
from podplane.kernel.door import Kernel as KernelDoor
from podplane.kernel.namespace import CurrentNamespace, Namespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.machine.journal import Id, Journal, Kept
from podplane.machine.originals import KeptSysctls
from podplane.state.operations import LinkEvent
from podplane.state.value import Value

log = logging.getLogger(__name__)
OWN = "node"
"""The node's namespace, when all of it is read."""


class MachineHost:
    """The machine; its methods run on one event loop."""

    def __init__(self, journal: Journal, workers: Workers) -> None:
        self._namespace = CurrentNamespace()
        self._opener = KernelOpener()
        self._journal = journal
        self._workers = workers
        self.found: dict[Id, NetworkNamespace] = {}
        """The namespaces of what was attached when this agent started. Who serves the runtime lets go of them."""
        self._attached = self._reopened()

    @property
    def namespace(self) -> Namespace:
        """That of this process."""
        return self._namespace

    def open_kernel(self) -> Kernel:
        """Another door, which knows what sysctls were before podplane came."""
        return KernelDoor(self._namespace, self._opener, KeptSysctls(self._journal))

    def values(self) -> Iterable[Value]:
        """All links, addresses and routes of the machine but those that the kernel made itself."""
        kernel = KernelDoor(self._namespace, self._opener)
        try:
            kernel.attach(OWN, self._namespace)
            return kernel.read_namespace(OWN).values()
        finally:
            kernel.close()

    def attached(self) -> Iterable[AttachedPod]:
        """What the journal says, where the namespace is still there."""
        return self._attached

    def last_ips(self) -> tuple[str, ...]:
        """As the journal has it."""
        return self._journal.last

    def _reopened(self) -> list[AttachedPod]:
        return [found for kept in tuple(self._journal.attachments.values()) if (found := self._reopen(kept)) is not None]

    def _reopen(self, kept: Kept) -> AttachedPod | None:
        """Its namespace opened again; None when it is gone, and then it is not attached any more."""
        path = kept.attach.netns_path
        try:
            namespace = NetworkNamespace.open(path, self._workers)
        except OSError as error:
            self._gone(kept, f"{path}: {error.strerror}")
            return None
        try:
            is_another = bool(kept.cookie) and namespace.cookie != kept.cookie
        except OSError as error:
            namespace.close()
            self._gone(kept, f"{path}: {error.strerror}")
            return None
        if is_another:
            namespace.close()
            self._gone(kept, f"{path} is another namespace by now")
            return None
        self.found[kept.id] = namespace
        return kept.attachment(namespace), kept.ips

    def _gone(self, kept: Kept, why: str) -> None:
        one = kept.attach
        log.warning(
            "detached pod=%s/%s container=%s its network namespace is gone: %s", one.namespace, one.name, kept.id[0], why
        )
        self.detached(kept.id)

    def attaching(self, request: Attachment, ips: tuple[str, ...]) -> None:
        """It is in the journal when this returns."""
        namespace = request.netns
        self._journal.attach(request, ips, namespace.cookie if isinstance(namespace, NetworkNamespace) else 0)

    def detached(self, id_: Id) -> None:
        """It is gone in the journal, too. What can't be written there is found to be gone by the next agent, with its namespace."""
        try:
            self._journal.detach(id_)
        except OSError as error:
            log.warning("journal path=%s error=%s", error.filename, error.strerror)

    def link_changed(self, name: str, event: LinkEvent) -> None:
        """Who configures the machine's network sees to its links."""
        log.info("link name=%s present=%s up=%s", name, event.is_present, event.is_up)
