"""What a backend is: how packets of pods get from one node to another.

A backend is a row, as a controller is in `apiserver.controllers.table`. What it adds to each packet, which devices it makes on a node,
and what it plans for a node and for each of the node's peers are all that the rest needs to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from podplane.model.config import NetworkConfig
from podplane.model.objects import Node
from podplane.routes import underlay
from podplane.state.links import LEAST_MTU
from podplane.state.nft_rules import Row
from podplane.state.ownership import Ownership
from podplane.state.value import Fragment, network_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A way between nodes.

    `overhead` is what it adds to a packet, in bytes, by the IP version of the underlay. `devices` are the names of the links that it
    makes on each node, and `kinds` their types (IFLA_INFO_KIND), by the IP version of the underlay. `plan_node(node, settings)` is what a
    node needs whatever peers it has; `plan_peer(peer, node, settings)` is what `node` needs to reach the pods of `peer`.
    `depends_on(node, settings)` is what that plan reads of `node`: nodes for which it is equal have equal plans of a peer, and may share
    one. `owns(settings)` are the marks of all that these plans put into the kernel. `is_direct(peer, node, settings)`: the network between
    both carries packets with addresses of pods. `why_not(peer, node, settings)` says why pods of the peer are not reached, or some of their
    addresses; "" where they are. `carried_in(settings)` is what its packets are to the network between nodes, as the rules of a firewall
    name it ("UDP port 4789"); "" where they are those of pods, and `outer(settings)` matches them in nf_tables. `tunnel` is the name of
    another backend, by which peers are reached that are not on a link with the node.
    """

    name: str
    overhead: Mapping[int, int]
    devices: tuple[str, ...] = ()
    kinds: Mapping[int, str] = field(default_factory=dict)
    plan_node: Callable[[Node, NetworkConfig], Fragment]
    plan_peer: Callable[[Node, Node, NetworkConfig], Fragment]
    depends_on: Callable[[Node, NetworkConfig], Hashable]
    owns: Callable[[NetworkConfig], Ownership]
    is_direct: Callable[[Node, Node, NetworkConfig], bool] = lambda peer, node, settings: False
    why_not: Callable[[Node, Node, NetworkConfig], str] = lambda peer, node, settings: ""
    carried_in: Callable[[NetworkConfig], str] = lambda settings: ""
    outer: Callable[[NetworkConfig], Row] = lambda settings: ()
    tunnel: str = ""

    def room(self, node: Node, settings: NetworkConfig) -> int:
        """What is left for a packet of a pod on the way to peers, in bytes: what the uplink carries, without the overhead on it.

        The node's first address says which IP version its packets to peers have; where it has none yet, the greatest overhead counts.
        """
        first = node.internal_ips[:1]
        return settings.mtu - (self.overhead[6 if ":" in first[0] else 4] if first else max(self.overhead.values()))

    def pod_mtu(self, node: Node, settings: NetworkConfig) -> int:
        """The MTU of a node's pods and of their bridge, in bytes: the room there is.

        Pods with an IPv6 address have no less than IPv6 needs, or the kernel would take it away: it serves them on their node still.
        """
        versions = {network_of(block).version for block in node.spec.pod_cidrs}
        return max(self.room(node, settings), *(LEAST_MTU[version] for version in (4, *versions)))

    def path_mtu(self, peer: Node, node: Node, settings: NetworkConfig) -> int:
        """The largest packet of a pod of `node` to one of the peer, in bytes, as far as both nodes know."""
        remote = underlay.remote(peer, node)
        mtu = underlay.mtu_to(peer, settings)
        return mtu if remote is None or self.is_direct(peer, node, settings) else mtu - self.overhead[remote.version]
