"""What agents plan by: each key owns one fragment of the desired state. Keys of different types are never equal.

A key names the API object that it is about, so that events can be written about it.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from podplane.model.cluster_policy import Policy
from podplane.model.policy import NetworkPolicy


class Key(msgspec.Struct, frozen=True):
    """Base of all keys: `kind` is apiVersion and kind of the object that the key is about, `path` its `namespace/name`, or name."""

    kind: ClassVar[str] = ""
    path: str

    def __str__(self) -> str:
        return f"{self.kind.rpartition('/')[2].lower()}/{self.path}"


class NodeKey(Key, frozen=True):
    """This node's own network."""

    kind: ClassVar[str] = "v1/Node"


class NameServerKey(Key, frozen=True):
    """The way of this node's pods to its own name server."""

    kind: ClassVar[str] = "v1/Node"


class PeerKey(Key, frozen=True):
    """Another node, as this one reaches it."""

    kind: ClassVar[str] = "v1/Node"


class ServiceKey(Key, frozen=True):
    """A Service."""

    kind: ClassVar[str] = "v1/Service"


class AdvertisementKey(Key, frozen=True):
    """The load balancer addresses of a Service, which this node advertises."""

    kind: ClassVar[str] = "v1/Service"


class PodKey(Key, frozen=True):
    """Something about one interface of one pod sandbox (CNI: CNI_CONTAINERID, CNI_IFNAME)."""

    kind: ClassVar[str] = "v1/Pod"
    container_id: str
    ifname: str
    pod_uid: str

    def __str__(self) -> str:
        namespace, _, name = self.path.partition("/")
        return super().__str__() if namespace else f"container/{name}"


class AttachmentKey(PodKey, frozen=True):
    """The interface itself."""


class HostPortKey(PodKey, frozen=True):
    """The ports of the node that lead to it."""


class PolicyPodKey(PodKey, frozen=True):
    """What policies let it send, and be sent."""


class NetworkPolicyKey(Key, frozen=True):
    """A NetworkPolicy: nothing is planned by it, events are written about it."""

    kind: ClassVar[str] = "networking.k8s.io/v1/NetworkPolicy"


class ClusterNetworkPolicyKey(Key, frozen=True):
    """A ClusterNetworkPolicy: as a NetworkPolicy."""

    kind: ClassVar[str] = "policy.networking.k8s.io/v1alpha2/ClusterNetworkPolicy"


def of_policy(policy: Policy) -> Key:
    """By which events are written about a policy."""
    kind = NetworkPolicyKey if isinstance(policy, NetworkPolicy) else ClusterNetworkPolicyKey
    return kind(policy.metadata.path)


class PolicyPeersKey(Key, frozen=True):
    """The pods of a selector (by its digest), some of which came or went; `path` is the node's."""

    kind: ClassVar[str] = "v1/Node"
    selector: str


class PolicySetKey(Key, frozen=True):
    """What is in a set (by its digest) that rules on this node look into; `path` is the node's."""

    kind: ClassVar[str] = "v1/Node"
    digest: str


class PolicyNameServersKey(Key, frozen=True):
    """The cluster's DNS, as this node's pods reach it, in sets that rules on this node look into."""

    kind: ClassVar[str] = "v1/Node"
