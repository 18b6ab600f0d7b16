"""Values of rtnetlink's world: links, addresses, routes, neighbours, forwarding entries, rules; and sysctls.

Sources: rtnetlink(7), include/uapi/linux/{if_link,rtnetlink,neighbour,fib_rules}.h. Fields that are None or empty are
left to the kernel: they are neither set nor compared. Identities hold addresses as integers: hashing those costs a tenth.
"""

from __future__ import annotations

from podplane.state.value import Identity, IPAddress, IPNetwork, Value

MAIN_TABLE = 254
"""RT_TABLE_MAIN."""
QDISC_HANDLE = FILTER_PRIORITY = 0x7070
"""The marks of podplane's shapers and filters: `qdisc tbf 7070:`, `filter … pref 28784`."""


PORT_MODES: dict[str, bool | int] = {
    "hairpin": False,
    "learning": True,
    "flood": True,
    "isolated": False,
    "locked": False,
    "multicast_flood": True,
    "broadcast_flood": True,
    "group_forward": 0,
}
"""Fields of `Link` that it has as a port of a bridge only, and the kernel's defaults."""


class Peer(Value, frozen=True, gc=False, kw_only=True):
    """The other end of a veth pair, made together with it, straight in its own namespace `netns`."""

    name: str
    mac: str = ""
    mtu: int = 0


class Vxlan(Value, frozen=True, gc=False, kw_only=True):
    """What a VXLAN device needs beyond a link (RFC 7348)."""

    vni: int
    local: IPAddress | None = None
    port: int = 4789
    device: str = ""
    learning: bool = False


class Gre(Value, frozen=True, gc=False, kw_only=True):
    """What a GRE device needs beyond a link (RFC 2784): `external` ones ask each packet's route where it goes (`Encap`), and take what
    comes from whomever."""

    external: bool = True


class Encap(Value, frozen=True, gc=False, kw_only=True):
    """How packets of a route are encapsulated by the external tunnel device that it leads to (ip-route(8), encap ip and ip6).

    They go to `remote`, from `local`, or from an address that the kernel chooses. `hops`: how many routers the packet on the way may pass
    at most; 0: as many as the one in it. `id` and `flags` (TUNNEL_*, linux/if_tunnel.h) say of a GRE key.
    """

    remote: IPAddress
    local: IPAddress | None = None
    hops: int = 0
    id: int = 0
    flags: int = 0


class Link(Value, frozen=True, gc=False, kw_only=True):
    """A network interface.

    `kind` is IFLA_INFO_KIND ("bridge", "veth", "vxlan", "gre", "ip6gre", "ifb"), or "" for an interface that is there already (lo, eth0)
    and is only configured: such a link is never created or deleted. `alias` (IFLA_IFALIAS) marks a link as podplane's and names the
    API object that asked for it (`state.ownership`).
    `hairpin`, `learning`, `flood`, `isolated`, `locked`, `multicast_flood` and `broadcast_flood` are modes of a bridge port (bridge(8)):
    whether a frame may leave by the port it came from, whether source addresses are learned from it, whether frames to unknown unicast
    addresses are sent to it, whether it exchanges no frames with other isolated ports, whether it takes frames only from MACs that the
    bridge has an entry of at this port, and whether multicasts and broadcasts of other ports are sent to it. `group_forward` has a bit
    for each address 01:80:c2:00:00:0X: its frames are taken as all others are, and don't go past the bridge to the port's own interface.
    `snooping` is of a bridge: whether it notes which port wants which multicasts.
    """

    name: str
    kind: str = ""
    up: bool = True
    mtu: int = 0
    mac: str = ""
    master: str = ""
    hairpin: bool = False
    learning: bool = True
    flood: bool = True
    isolated: bool = False
    locked: bool = False
    multicast_flood: bool = True
    broadcast_flood: bool = True
    group_forward: int = 0
    snooping: bool = True
    alias: str = ""
    peer: Peer | None = None
    vxlan: Vxlan | None = None
    gre: Gre | None = None

    @property
    def identity(self) -> Identity:
        return ("Link", self.netns, self.name)


class Address(Value, frozen=True, gc=False, kw_only=True):
    """An address with its prefix length on a link. IPv6 addresses are set without duplicate address detection (IFA_F_NODAD)."""

    link: str
    ip: IPAddress
    prefix_length: int

    @property
    def identity(self) -> Identity:
        return ("Address", self.netns, self.link, self.ip.version, int(self.ip), self.prefix_length)


class Route(Value, frozen=True, gc=False, kw_only=True):
    """A route. `protocol` is the number of its owner (rtm_protocol), by which it is read back and removed.

    `kind` is its type (rtm_type): "unicast", or "unreachable", "blackhole", "prohibit", which have neither gateway nor link.

    Without `gateway` the destination is on the link (scope link for IPv4). `onlink` says that the gateway is reachable
    on `link` though no route says so. `encap` says how the tunnel device `link` sends its packets.
    """

    destination: IPNetwork
    kind: str = "unicast"
    gateway: IPAddress | None = None
    link: str = ""
    source: IPAddress | None = None
    onlink: bool = False
    encap: Encap | None = None
    mtu: int = 0
    metric: int = 0
    table: int = MAIN_TABLE
    protocol: int

    @property
    def identity(self) -> Identity:
        network = self.destination.network_address
        return ("Route", self.netns, self.table, network.version, int(network), self.destination.prefixlen, self.metric)


class Neighbour(Value, frozen=True, gc=False, kw_only=True):
    """A permanent neighbour: `ip` on `link` has `mac` (arp_tbl, nd_tbl), "" on a tunnel, whose frames have no MAC. Permanent entries don't
    count against gc_thresh3.

    `protocol` (NDA_PROTOCOL) is the number of its owner, by which it is read back; 0: it has none.
    """

    link: str
    ip: IPAddress
    mac: str
    protocol: int = 0

    @property
    def identity(self) -> Identity:
        return ("Neighbour", self.netns, self.link, self.ip.version, int(self.ip))


class Proxy(Value, frozen=True, gc=False, kw_only=True):
    """An address for which the kernel answers on a link though it is not its own (ip-neighbour(8), proxy): ARP, neighbour solicitations.

    IPv4 needs a route for it that leaves by another link, IPv6 the sysctl proxy_ndp. `protocol` is the number of its owner.
    """

    link: str
    ip: IPAddress
    protocol: int

    @property
    def identity(self) -> Identity:
        return ("Proxy", self.netns, self.link, self.ip.version, int(self.ip))


ZERO_MAC = "00:00:00:00:00:00"
ODD_DIGITS = frozenset("13579bdf")
"""The second one of a multicast MAC (IEEE 802)."""


class Fdb(Value, frozen=True, gc=False, kw_only=True):
    """A forwarding entry (bridge(8), fdb): frames to `mac` go to `link`.

    By default it is an entry of a VXLAN device itself ("self permanent"), which sends them to `remote`; of a MAC that floods it has one
    for each remote. With `master` it is a static entry of the bridge that `link` is a port of ("master static"); it is removed together
    with the port.
    """

    link: str
    mac: str
    remote: IPAddress | None = None
    master: bool = False

    @property
    def identity(self) -> Identity:
        return ("Fdb", self.netns, self.link, self.mac, self.master, int(self.remote) if self.remote and self.floods else 0)

    @property
    def floods(self) -> bool:
        """May a VXLAN device have several entries for this MAC? Only for zero and multicast (vxlan_fdb_update). The kernel changes where
        any other one leads in place (NLM_F_REPLACE, vxlan_fdb_replace)."""
        return self.mac[1:2] in ODD_DIGITS or self.mac == ZERO_MAC


class Qdisc(Value, frozen=True, gc=False, kw_only=True):
    """The shaper at the root of a link (tc(8), tc-tbf(8)): what is sent by the link leaves it at `rate` byte/s, but for `burst` byte at
    once; of what waits, it keeps at most `limit` byte. Whole Ethernet frames are counted.

    `kind` is TCA_KIND; of others than "tbf" nothing else is known. `handle` is its major number, by which it is read back as podplane's.
    """

    link: str
    rate: int = 0
    burst: int = 0
    limit: int = 0
    kind: str = "tbf"
    handle: int = QDISC_HANDLE

    @property
    def identity(self) -> Identity:
        return ("Qdisc", self.netns, self.link)


class Redirect(Value, frozen=True, gc=False, kw_only=True):
    """A filter (tc-u32(8), tc-mirred(8)): what comes in by `link` leaves by `to` instead, "" for a link that is gone.

    With a link of kind "ifb" it comes in by `link` after that, as if it had come just then: so what comes in can be shaped. The filter is
    podplane's by its priority (FILTER_PRIORITY), and brings the qdisc clsact, which it lies in, unless that is there.
    """

    link: str
    to: str

    @property
    def identity(self) -> Identity:
        return ("Redirect", self.netns, self.link)


class SoftwareChecksum(Value, frozen=True, gc=False, kw_only=True):
    """What is sent by a link has its checksums before it gets there: the kernel computes them, and so cuts segments, and leaves neither
    to the link or what is below it (ethtool(8): `ethtool -K LINK tx off`).

    It is there or not; without it the link is as the kernel makes it. It goes with the link.
    """

    link: str

    @property
    def identity(self) -> Identity:
        return ("SoftwareChecksum", self.netns, self.link)


class Rule(Value, frozen=True, gc=False, kw_only=True):
    """A policy routing rule (ip-rule(8)): packets that match look into `table`."""

    priority: int
    family: int
    table: int
    source: IPNetwork | None = None
    destination: IPNetwork | None = None
    mark: int = 0
    mark_mask: int = 0
    protocol: int = 0

    @property
    def identity(self) -> Identity:
        return (
            "Rule",
            self.netns,
            self.family,
            self.priority,
            str(self.source or ""),
            str(self.destination or ""),
            self.mark,
            self.mark_mask,
        )


class Sysctl(Value, frozen=True, gc=False, kw_only=True):
    """A sysctl of a network namespace, in the notation of sysctl(8): `net.ipv4.ip_forward`; a dot within an interface name is `/`.

    With `link` it is a sysctl of an interface that podplane makes: it is set once the interface is there, and is removed together
    with the interface, so its former value is never restored. Without, the value of before is restored when it is deleted.
    """

    name: str
    value: str
    link: str = ""

    @property
    def identity(self) -> Identity:
        return ("Sysctl", self.netns, self.name)
