"""What a container runtime asks of a node's network, and what it gets: the verbs of the CNI specification, typed.

The agent implements `Network`; the lab's kubelet calls it directly, or as the CNI plugin of a real node does: over a socket (`cni.server`,
`cni.client`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import msgspec

from podplane.kernel.namespace import Namespace
from podplane.model.view import NO_LIMITS, Bandwidth, BridgeNetwork, HostPort


class NetworkError(Exception):
    """The pod can't be attached; one line that says why and what to do."""


class TryAgainError(NetworkError):
    """It can't be attached yet; the same call may succeed later."""


class Unready(msgspec.Struct, frozen=True):
    """Why a network can't attach pods now; `is_limited`: pods that are attached may be cut off from others, too."""

    reason: str
    is_limited: bool = False


class FurtherNetworkError(NetworkError):
    """The pod could be attached, but not to a further network that it asks for."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one pod sandbox: `netns` is its network namespace, `requested_ips` addresses that it had before.

    (container_id, ifname) tells attachments apart, as in the specification; `pod_uid` is the Kubernetes pod's. What was asked for beyond
    (capabilities `ips`, `mac` and `bandwidth` of CNI) is given, or ADD fails: `asked_ips` are addresses, at most one of each block of the
    node, without prefix length; `mac` is as `ip link` shows it, "" for none.
    """

    container_id: str
    pod_uid: str
    namespace: str
    name: str
    netns: Namespace
    ifname: str = "eth0"
    requested_ips: tuple[str, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    asked_ips: tuple[str, ...] = ()
    mac: str = ""
    bandwidth: Bandwidth = NO_LIMITS
    further: BridgeNetwork | None = None
    """The network of a further interface; None for the pod's own."""
    network: str = ""
    """The name in the CNI configuration by which it was asked for."""
    netns_path: str = ""
    """Of `netns` as the caller named it (CNI_NETNS), "" when it did not."""
    mtu: int | None = None
    """What a CHECK is to find inside of the pod; None: what it was attached with, 0: any, as somebody else may have set another one."""

    @property
    def id(self) -> tuple[str, str]:
        """(container id, interface name)."""
        return (self.container_id, self.ifname)

    @property
    def who(self) -> str:
        """What is attached, in words: a container that is no Kubernetes pod is in no namespace."""
        return f"pod {self.namespace}/{self.name}" if self.namespace else f"container {self.container_id}"


class Attached(msgspec.Struct, frozen=True):
    """The outcome of ADD: addresses (one a family, the cluster's first family first), interface and its MAC.

    `gateways` are those of the addresses, in their order; `host_interface` is the node's end.
    """

    ips: tuple[str, ...]
    interface: str
    mac: str
    gateways: tuple[str, ...] = ()
    has_default_routes: bool = True
    host_interface: str = ""
    mtu: int = 0


class Network(Protocol):
    """One node's network, as the runtime sees it."""

    async def add(self, request: Attachment) -> Attached:
        """Attach a pod; all is in place when this returns. NetworkError when it can't be, and then nothing is left."""

    async def delete(self, request: Attachment) -> None:
        """Detach a pod; of one that isn't attached, nothing happens."""

    async def check(self, request: Attachment) -> None:
        """NetworkError unless the pod's kernel objects are as planned."""

    async def gc(self, keep: Collection[Attachment]) -> None:
        """Detach every pod that is not in `keep`."""


class NodeNetwork(Network, Protocol):
    """A network that is asked through a CNI plugin (`cni.server`), which knows nothing of what it asked before."""

    async def begun(self) -> None:
        """Wait until it is known what is attached. TryAgainError when that takes too long."""

    def find(self, id_: tuple[str, str]) -> Attached | None:
        """What an attachment got; None of one that isn't attached."""

    def attachments(self) -> Collection[Attachment]:
        """All that there are."""

    def unready(self) -> Unready | None:
        """Why no pod can be attached now, None when pods can (CNI STATUS)."""
