"""Settings of a node's network that several features read; each comes from the lab or the agent's configuration."""

from __future__ import annotations

import msgspec

BACKENDS = "podplane.dev/backends"
"""Node annotation: the backends by which the node can be reached, comma-separated. Without it: by whichever the cluster has."""
UNDERLAY_MAC = "podplane.dev/underlay-mac"
"""Node annotation: the MAC of the interface with which the node reaches its peers, for permanent neighbours."""
UNDERLAY_MTU = "podplane.dev/underlay-mtu"
"""Node annotation: the largest packet that the node takes from its peers, in bytes, with what a tunnel adds."""
MACHINE = "podplane.dev/machine"
"""Node annotation: the machine whose agent has the Node, as JSON (`machine.one_machine`)."""
NOT_READY = "node.podplane.io/not-ready"
"""Taint of a Node: whoever registers nodes may set it, to keep pods away until the node's network is in place; its agent takes it away."""
NO_NETWORK = "NetworkUnavailable"
"""A condition of Nodes: kube-controller-manager keeps new pods from one that has it, by a taint."""
NO_ROUTE = "NoRouteCreated"
"""Its reason where a cloud's controller waits for routes of the cloud to the node's pods (cloud-provider, node_controller.go)."""
IS_UP = {
    "type": NO_NETWORK,
    "status": "False",
    "reason": "PodplaneIsUp",
    "message": "podplane is running on this node",
}
"""The same condition, once the network of a node is in place."""
TWICE = "PodCIDRTwice"
"""Its reason where podplane's controllers say that a Node's block is an older Node's, too."""
ITS_OWN = {
    "type": NO_NETWORK,
    "status": "False",
    "reason": "PodCIDRItsOwn",
    "message": "its block is no older node's",
}
"""The same condition, once that is so no more."""
FAULT, FAULT_ANSWERS, ACTIVE_FAULTS = "podplane.dev/fault", "podplane.dev/fault-answers", "podplane.dev/active-faults"
"""Node annotations of a lab: the fault that is asked for; answers to the last requests; the faults that are active (`lab.faults`)."""
PUBLISH, PUBLISHED = "podplane.dev/publish", "podplane.dev/published"
NOT_PUBLISHED = " not published: "
"""Service annotations: which of its ports are wished for on the localhost of a lab's host (`8080:80,…`); which are there, or why not."""
ROUTE_PROTOCOL = 80
"""rtm_protocol of every route and rule that podplane owns (not in iproute2's rt_protos, so shown as a number)."""
CHECK_NAMESPACE = "podplane-check"
"""The Kubernetes namespace that is there while `podplane check` runs: it holds the pods that this adds."""
AGENT_PORT = 10256
"""Where a node's agent answers over HTTP, on all of the node's addresses: kube-proxy's health port."""
VIEWER, VIEWER_AUDIENCE, VIEWER_HEADER = "podplane-viewer", "podplane", "x-podplane-token"
"""By which agents know who may read them through kube-apiserver, which passes on nobody's credentials: a token of this ServiceAccount of
kube-system, for this audience alone, in this header (`kubeapi.authorization`)."""
STATUS_PORT = 10249
"""Where it answers on the node's localhost alone: kube-proxy's metrics port."""
BESIDE_PORT = 10356
"""Where a node's agent answers over HTTP when kube-proxy has those two."""
AGENT_PORT_SAID = "podplane.dev/agent-port"
"""Node annotation: where the node's agent answers over HTTP, where that is not `AGENT_PORT`."""
NAME_SERVER_PORT = 9153
"""Where a node's name server answers over HTTP, on the node's InternalIPs: the port of CoreDNS's metrics."""
NODE_GRACE_SECONDS, HEARTBEAT_SECONDS = 50.0, 10.0
"""So long a node may be silent (kube-controller-manager, --node-monitor-grace-period), and so often it is not (kubelet); a lab may say
otherwise."""
CLUSTER_DOMAIN = "cluster.local"
"""The domain of a cluster's names, where nobody says another."""


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How pods are attached to a node and the node to its peers.

    `mtu` is the largest packet on the uplink, in bytes, from which a backend that encapsulates takes its overhead: in settings the most
    that it may be, in an agent that runs what the uplink carries, where that is less (`agent.agent`). `backend` names the one that
    carries packets between nodes (`podplane.routes.table`), and `former_backends` those that other nodes may still send by, after it was
    changed. `cross_subnet`: with the backend host-gw, the tunnel by which nodes of other subnets are reached ("" for none).
    `permanent_neighbours`: the MACs of other nodes are taken from annotations of their Nodes, where these have them, and not asked for by
    ARP and neighbour discovery. `bridge_family` says whether the kernel has nf_tables of the bridge family: without, pods of one node
    reach each other through the bridge's own interface (`podplane.pods.bridge`). `arp_family`: whether it has those of the ARP family:
    without, a node whose agent is dead still answers for the IPv4 addresses of load balancers (`podplane.services.lifetime`).
    `log_denied`: some of the packets that policies deny are told to the agent (NFLOG), where the kernel can do that. `subnets` are
    networks between nodes on each of which nodes reach each other without a router; without any, all nodes do. `tunnel_offload`: are
    checksums and segmentation of tunnels left to what is below them (`podplane.routes.offload`)? `kernel` is the release of the node's
    kernel, and `uplink_driver` the driver of its uplink, as the agent finds them ("": not known). `former_bridge` is the bridge of the
    network that the node is migrated from, while pods may be on it ("": there is none), and `route_metric` that of routes to blocks, so
    that those of that network count before them (`podplane.routes.behind`; 0: the kernel's default). `agent_port`: where
    the node's agent answers over HTTP. `left_out` are blocks of other Nodes that are not routed, each with the reason.
    """

    cluster_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...] = ()
    bridge: str = "cbr0"
    uplink: str = "eth0"
    mtu: int = 1500
    backend: str = "host-gw"
    cross_subnet: str = ""
    former_backends: tuple[str, ...] = ()
    permanent_neighbours: bool = True
    bridge_family: bool = True
    arp_family: bool = True
    log_denied: bool = True
    subnets: tuple[str, ...] = ()
    vxlan_vni: int = 1
    vxlan_port: int = 4789
    tunnel_offload: str = "auto"
    kernel: str = ""
    uplink_driver: str = ""
    former_bridge: str = ""
    route_metric: int = 0
    agent_port: int = AGENT_PORT
    left_out: tuple[tuple[str, str], ...] = ()
