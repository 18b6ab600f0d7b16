"""What a node's agent answers over HTTP about itself and its Services (`agent.reports`), for those who make it and those who ask.

Ages are in seconds. Lists are cut (`agent.status.LISTED`); their counts are not.
"""

from __future__ import annotations

import msgspec

STARTING = "the agent is starting"
"""Before why, in the text of status 503: what an agent that does not answer for itself yet says to every question."""


class Traffic(msgspec.Struct, gc=False):
    """All tracked connections from one frontend to one endpoint; `service` has the frontend now ("": no Service has)."""

    address: str
    port: int
    protocol: str
    endpoint: str
    endpoint_port: int
    service: str = ""
    connections: int = 0
    packets: int = 0
    bytes: int = 0


class Frontend(msgspec.Struct, gc=False):
    """An address and port that leads to a group of endpoints; with no group, connections are refused."""

    address: str
    port: int
    protocol: str
    group: str


class Description(msgspec.Struct):
    """One Service on one node: its frontends, and the endpoints of each group as `address port`."""

    frontends: list[Frontend]
    groups: dict[str, list[tuple[str, int]]]


class ObjectCount(msgspec.Struct, frozen=True):
    """Kernel objects of one kind that a feature asked for; `feature` is "" for those that are there still though nobody wants them."""

    feature: str
    kind: str
    done: int
    pending: int
    refused: int


class RefusedObject(msgspec.Struct, frozen=True):
    """An object that the kernel refuses: what, the keys that want it, why, for how long, how often, and when it is tried again."""

    object: str
    wanted_by: list[str]
    why: str
    age: float
    tries: int
    next_try_in: float


class RouteStatus(msgspec.Struct, frozen=True):
    """A route of podplane's on a node: `destination` by `link`, to the gateway `via` where there is one.

    `through` is the address of the node at the other end of the tunnel that it leads through ("": none); `wanted_by` are the keys that
    asked for it, `state` is that of the ledger: done, pending, refused. `withdrawn` are those nodes of theirs because of which it refuses
    what is sent to their pods: they are not ready and do not answer.
    """

    destination: str
    kind: str
    via: str
    link: str
    through: str
    wanted_by: list[str]
    state: str
    withdrawn: list[str] = []


class PeerWay(msgspec.Struct, frozen=True, kw_only=True):
    """A way to a peer that a node probes: to the peer's own address (`layer` is "underlay"), or to the gateway of its pods ("overlay") by a
    backend.

    `state` is "reached", "lost" or "unknown", for `age` seconds. `latency` is the smoothed time of a round trip in seconds (None: none was
    answered yet), `loss` the part of the last `probes` that had no answer.
    """

    peer: str
    layer: str
    backend: str
    ip: str
    state: str
    latency: float | None
    loss: float
    probes: int
    age: float
    is_withdrawn: bool


class PeerProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Pods of a peer that are not reached over a backend, for `age` seconds (`loss` is 1), or of whose probes this part is lost.

    `families` are the IP versions that it concerns ("IPv6"), [] for all that there are; `underlay` says whether the peer's own address is
    reached ("reached", "lost", "unknown"), and `carried_in` what the backend's packets are to the network between nodes ("UDP port 4789").
    """

    peer: str
    backend: str
    families: list[str]
    underlay: str
    carried_in: str
    loss: float
    age: float
    is_not_ready: bool
    is_withdrawn: bool
    takes: int = 0
    """Bytes: the largest packet that it says it takes, where that is too small for IPv6; 0 else."""


class BlockedKey(msgspec.Struct, frozen=True):
    """A key that is not planned as its object asks for, and why."""

    key: str
    feature: str
    why: str


class AuditStatus(msgspec.Struct, frozen=True):
    """Audits of one part of the kernel's state: how many, how long ago the last one ended and took, did it, or one with it,
    find anything new?"""

    part: str
    count: int
    age: float
    took: float
    found_deviation: bool


class Repair(msgspec.Struct, frozen=True):
    """What somebody else had changed and was repaired."""

    age: float
    what: str


class TaskStatus(msgspec.Struct, frozen=True):
    """A supervised task."""

    name: str
    is_running: bool
    restarts: int
    last_error: str


class CacheStatus(msgspec.Struct, frozen=True):
    """A cache of the process: how many objects, is it current, what went wrong since the start."""

    resource: str
    objects: int
    is_synced: bool
    failures: dict[str, int]


class ApiStatus(msgspec.Struct, frozen=True):
    """How the last request of this node to the API ended: was it answered, how long ago, and if not, why."""

    is_reached: bool
    age: float
    error: str


class Summary(msgspec.Struct, frozen=True):
    """How much is wrong on a node; `api_error` is why it does not reach the API ("": it does), `unreached` which peers it does not, `unmet`
    what it does without of what its Node and those of peers ask for; `first_refused` and `first_blocked` are one object each, and why, in
    at most `agent.status.REASON` characters ("": none)."""

    node: str
    refused: int
    blocked: int
    restarts: int
    api_error: str = ""
    unreached: list[PeerProblem] = []
    unmet: list[str] = []
    first_refused: str = ""
    first_blocked: str = ""


class FormerNetwork(msgspec.Struct, frozen=True):
    """What is left of the network that a node is migrated from: its bridge, the number of the bridge's ports, and the node's pods (by path)
    that podplane did not attach. Other containers may be on it, too."""

    bridge: str
    ports: int
    pods: list[str] = []


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `version` is that of the agent ("": it is older than this field), `longest_turn` is of the process's event loop, and None
    unless it is measured (`podplane.loop_turns`). `without_offload` are types of tunnels whose checksums and segments are made in software,
    and why."""

    node: str
    objects: list[ObjectCount]
    refused: int
    refused_objects: list[RefusedObject]
    blocked: int
    blocked_keys: list[BlockedKey]
    unmet: list[str] = []
    without_offload: list[str] = []
    former_network: FormerNetwork | None = None
    dirty_keys: dict[str, int]
    operations_applied: int
    operations_refused: int
    audits: list[AuditStatus]
    repaired: dict[str, int]
    last_repairs: list[Repair]
    tasks: list[TaskStatus]
    caches: list[CacheStatus]
    api: ApiStatus | None
    reconcile_age: float
    longest_turn: float | None
    peers: list[PeerWay] = []
    unreached: list[PeerProblem] = []
    version: str = ""


class Party(msgspec.Struct, frozen=True):
    """One end of a packet: its address, and what has it: "pod", "node", "service", "dns" (the cluster's) or "" (none of these)."""

    address: str
    kind: str = ""
    name: str = ""


class DeniedFlow(msgspec.Struct, frozen=True):
    """Equal packets that were denied: from whom, to whom and to which port (0: the protocol has none).

    `reason` is "in" (no policy allows the receiver this), "out" (none allows the sender this), "gate" or "foreign"
    (`policy.tables.DENIALS`); `policies` are those that deny it, by default or by a rule (one of them). `number` tells it from others of
    this node. `in_check`: it came while `podplane check` ran, between those that take part in that.
    """

    number: int
    reason: str
    source: Party
    destination: Party
    protocol: str
    port: int
    policies: tuple[str, ...]
    packets: int
    first_age: float
    last_age: float
    in_check: bool = False


class DeniedFlows(msgspec.Struct, frozen=True):
    """What a node denied, the newest first. `told` of the `dropped` packets since it began to read them, `since` seconds ago, were told
    apart; None: it does not read them, because no policy selects any of its pods, or because of `error`. What comes next is after `change`.
    """

    node: str
    change: int
    told: int
    dropped: int
    since: float | None
    error: str
    flows: list[DeniedFlow]


class SeenFlow(msgspec.Struct, frozen=True):
    """Connections that a node tracked: from whom, to whom and to which port (0: the protocol has none), and how long ago the last one of
    them was there."""

    source: Party
    destination: Party
    protocol: str
    port: int
    age: float


class SeenFlows(msgspec.Struct, frozen=True):
    """Those of the last hour, or since it began to look, `since` seconds ago; `error` is why it could not look now, or "". `denied` are
    those that policies denied in the last 10 minutes, as far as they are told apart."""

    node: str
    since: float
    error: str
    flows: list[SeenFlow]
    denied: list[SeenFlow] = []


class RuleCount(msgspec.Struct, frozen=True):
    """How many connections a rule of a policy allowed on a node, since a pod of the node is under it."""

    policy: str
    direction: str
    rule: int
    connections: int


class DenialCount(msgspec.Struct, frozen=True):
    """How many packets of pods under just these policies none of them allowed; and how many connections those of `together` allowed, which
    are not counted apart."""

    direction: str
    policies: tuple[str, ...]
    packets: int
    together: tuple[str, ...] = ()
    connections: int = 0


class PolicyCounts(msgspec.Struct, frozen=True):
    """How often policies decided on a node; `dropped` by reason (`policy.tables.DENIALS`)."""

    rules: list[RuleCount]
    denials: list[DenialCount]
    dropped: dict[str, int]
