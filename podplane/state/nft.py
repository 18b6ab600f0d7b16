"""Values of nf_tables: tables, chains with their rules, sets and maps, elements (nft(8), include/uapi/linux/netfilter/nf_tables.h).

A chain with all its rules is one value: it changes by one transaction (flush, then add), so nobody ever meets half of it.
A rule is a row of expressions of the kernel's little machine: they load registers, compare, look up, and end in a
verdict or a statement. `nft_rules` builds them under names that read like nft's own.

Registers are named in the kernel's normal form: 1-4 are the 16-byte ones, 9-11, 13-15, … the 4-byte ones between.
"""

from __future__ import annotations

import hashlib

import msgspec

from podplane.state.value import Identity, IPAddress, IPNetwork, Value

ACCEPT, DROP, CONTINUE, RETURN, JUMP, GOTO = 1, 0, -1, -5, -3, -4
"""Verdict codes (NF_*, NFT_*)."""
REGISTER_VERDICT, REGISTER_1 = 0, 1
COUNTER_OBJECT = 1
"""NFT_OBJECT_COUNTER."""
COMMENT_BYTES = 127
"""nft takes comments of at most so many (NFTNL_UDATA_COMMENT_MAXLEN, with a zero behind)."""


def label(kind: str, path: str, room: int = 0) -> str:
    """`svc/default/web`: an object as comments name it, with `room` left for more letters; of a long name, the beginning and a digest."""
    text, most = f"{kind}/{path}", COMMENT_BYTES - room
    if len(text) <= most and (text.isascii() or len(text.encode()) <= most):
        return text
    return f"{text[: most - 9]}~{hashlib.blake2s(text.encode(), digest_size=4).hexdigest()}"


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a packet; `chain` for jump and goto."""

    code: int
    chain: str = ""


class Expression(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction of a rule."""


class Payload(Expression, frozen=True, kw_only=True):
    """Load packet bytes, or, with `sreg` and no `dreg`, overwrite them with a register's.

    Base 0 is the link layer header, 1 the network header, 2 the transport header. What is overwritten may be covered by a checksum:
    its type (NFT_PAYLOAD_CSUM_*; 0 is none), offset and flags.
    """

    dreg: int = REGISTER_1
    base: int
    offset: int
    length: int
    sreg: int = 0
    checksum: int = 0
    checksum_offset: int = 0
    checksum_flags: int = 0


class Meta(Expression, frozen=True, kw_only=True):
    """Load (dreg) or set (sreg) what the kernel knows of a packet."""

    key: int
    dreg: int = 0
    sreg: int = 0


class Ct(Expression, frozen=True, kw_only=True):
    """Load or set what connection tracking knows; direction 0 is the original one, -1 none."""

    key: int
    dreg: int = 0
    direction: int = -1
    sreg: int = 0


class Cmp(Expression, frozen=True, kw_only=True):
    """Go on with the rule only if the register compares so (0 is equal, 1 unequal)."""

    sreg: int = REGISTER_1
    op: int = 0
    data: bytes


class Range(Expression, frozen=True, kw_only=True):
    """Go on only if the register is within (0), or outside (1), both ends included."""

    sreg: int = REGISTER_1
    op: int = 0
    low: bytes
    high: bytes


class Bitwise(Expression, frozen=True, kw_only=True):
    """register & mask ^ xor."""

    sreg: int = REGISTER_1
    dreg: int = REGISTER_1
    length: int
    mask: bytes
    xor: bytes


class Lookup(Expression, frozen=True, kw_only=True):
    """Go on only if the register is in the set (flags 1: is not); a map loads `dreg`, or acts, for a verdict map with 0."""

    set: str
    sreg: int = REGISTER_1
    dreg: int = -1
    flags: int = 0


class Immediate(Expression, frozen=True, kw_only=True):
    """Load bytes; into the verdict register, a verdict."""

    dreg: int = REGISTER_VERDICT
    data: bytes | Verdict


class Counter(Expression, frozen=True, kw_only=True):
    """Count packets and bytes; the counts are no part of desired state."""


class CounterReference(Expression, frozen=True, kw_only=True):
    """Count in a `NamedCounter` of the table."""

    name: str
    type: int = COUNTER_OBJECT


class Masquerade(Expression, frozen=True, kw_only=True):
    """Source NAT to the address of the interface that the packet leaves by; flags are NF_NAT_RANGE_*."""

    flags: int = 0


class Nat(Expression, frozen=True, kw_only=True):
    """Source (type 0) or destination (1) NAT; 0 is no register."""

    type: int
    family: int
    address: int = 0
    address_max: int = 0
    port: int = 0
    port_max: int = 0
    flags: int = 0


class Redirect(Expression, frozen=True, kw_only=True):
    """Destination NAT to this host."""

    port: int = 0
    port_max: int = 0
    flags: int = 0


class Reject(Expression, frozen=True, kw_only=True):
    """Refuse with an ICMP error (type 0; 2 for both families, code in nft's own numbers) or a TCP reset (1)."""

    type: int
    code: int = 0


class Numgen(Expression, frozen=True, kw_only=True):
    """A number below `modulus` in rotation (type 0) or at random (1)."""

    dreg: int = REGISTER_1
    modulus: int
    type: int
    offset: int = 0


class Hash(Expression, frozen=True, kw_only=True):
    """Jenkins' hash of a register, below `modulus`."""

    sreg: int = REGISTER_1
    dreg: int = REGISTER_1
    length: int
    modulus: int
    seed: int = 0
    offset: int = 0
    type: int = 0


class Fib(Expression, frozen=True, kw_only=True):
    """What the routing table says of an address of the packet."""

    dreg: int = REGISTER_1
    result: int
    flags: int


class Limit(Expression, frozen=True, kw_only=True):
    """Go on at most `rate` times in `unit` seconds."""

    rate: int
    unit: int
    burst: int = 5
    type: int = 0
    flags: int = 0


class Log(Expression, frozen=True, kw_only=True):
    """Send the packet to a log group of nfnetlink, with a prefix."""

    group: int
    prefix: str = ""


class Dynset(Expression, frozen=True, kw_only=True):
    """Add (op 0), refresh (1) or delete (2) an element of a dynamic set or map; the timeout is in milliseconds."""

    set: str
    op: int
    key: int = REGISTER_1
    data: int
    timeout: int = 0


class Notrack(Expression, frozen=True, kw_only=True):
    """Leave the packet out of connection tracking."""


class RouteLoad(Expression, frozen=True, kw_only=True):
    """Load what the route of the packet says (`rt`, NFT_RT_*)."""

    dreg: int = REGISTER_1
    key: int


class ByteOrder(Expression, frozen=True, kw_only=True):
    """Bring numbers of `size` bytes in a register from the host's order into the network's (op 1), or back (0)."""

    sreg: int = REGISTER_1
    dreg: int = REGISTER_1
    op: int
    length: int
    size: int


class SetTcpOption(Expression, frozen=True, kw_only=True):
    """Write a register into a TCP option that is there. Of the maximum segment size (2) the kernel makes a smaller one, never a larger
    one (nft_exthdr_tcp_set_eval)."""

    sreg: int = REGISTER_1
    option: int
    offset: int
    length: int
    operation: int = 1
    """NFT_EXTHDR_OP_TCPOPT."""


class Opaque(Expression, frozen=True, kw_only=True):
    """An expression in the kernel that has no type here: its name, and its attributes as the kernel dumps them. Nothing plans one."""

    name: str
    content: bytes


class Rule(msgspec.Struct, frozen=True):
    """Expressions from left to right, and the API object that asked for them."""

    expressions: tuple[Expression, ...]
    comment: str = ""


class Hook(msgspec.Struct, frozen=True):
    """Where a base chain hangs; `policy` is what becomes of packets that reach its end."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"


class NftValue(Value, frozen=True, gc=False, kw_only=True):
    """Base of nf_tables' values: all belong to a table of a family (`inet`, `ip`, `ip6`, …)."""

    family: str = "inet"
    table: str


class Table(NftValue, frozen=True, gc=False, kw_only=True):
    """A table: deleted with all that is in it."""

    comment: str = ""

    @property
    def identity(self) -> Identity:
        return ("nft table", self.netns, self.family, self.table)


class Chain(NftValue, frozen=True, gc=False, kw_only=True):
    """A chain and its rules; with a hook it is a base chain."""

    name: str
    hook: Hook | None = None
    rules: tuple[Rule, ...] = ()
    comment: str = ""

    @property
    def identity(self) -> Identity:
        return ("nft chain", self.netns, self.family, self.table, self.name)


class Set(NftValue, frozen=True, gc=False, kw_only=True):
    """A set, or a map when it has `data`: names of nft's types; several for a concatenation. `data` of a verdict map is ("verdict",).

    A dynamic one with `size` elements is filled by rules, and its elements are no part of desired state; they expire.

    `rank` (0-65535) orders a change that takes several transactions: sets of a lower rank are filled first and emptied last. It says
    nothing about packets, so a set that has another rank in the kernel is as wanted (`kernel.door.Kernel.matches`).

    The elements of a `packed` one are one value (`nft_members.Members`).
    """

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False
    size: int = 0
    comment: str = ""
    rank: int = 0
    packed: bool = False

    @property
    def is_dynamic(self) -> bool:
        """Is it filled by rules?"""
        return self.size > 0

    @property
    def identity(self) -> Identity:
        return ("nft set", self.netns, self.family, self.table, self.name)


Part = IPAddress | IPNetwork | int | str
"""One part of a key: an address; a network in an interval set; a number (port, protocol, mark); an interface name."""


class Element(NftValue, frozen=True, gc=False, kw_only=True):
    """An element: its key, one part for each type of the set, and what a map gives for it."""

    set: str
    key: tuple[Part, ...]
    data: tuple[Part, ...] | Verdict | None = None
    comment: str = ""

    @property
    def identity(self) -> Identity:
        return ("nft element", self.netns, self.family, self.table, self.set, self.key)


class NamedCounter(NftValue, frozen=True, gc=False, kw_only=True):
    """A counter that rules refer to by its name: it goes on counting when their chains are rewritten. Its counts are no part of desired
    state."""

    name: str
    comment: str = ""

    @property
    def identity(self) -> Identity:
        return ("nft object", self.netns, self.family, self.table, COUNTER_OBJECT, self.name)


class OpaqueElement(NftValue, frozen=True, gc=False, kw_only=True):
    """An element in the kernel that `Element` can't describe (a range, a timeout, an expression). Nothing plans one; it may be deleted.

    It has the identity of the element that it stands in the place of; `content` is the list of elements that names it to the kernel.
    """

    set: str
    key: tuple[Part | bytes, ...]
    content: bytes

    @property
    def identity(self) -> Identity:
        return ("nft element", self.netns, self.family, self.table, self.set, self.key)


class UnreadElements(NftValue, frozen=True, gc=False, kw_only=True):
    """Read, though no object of the kernel's: it can't be said what is in this set, which was changed all the time."""

    set: str

    @property
    def identity(self) -> Identity:
        return ("nft unread", self.netns, self.family, self.table, self.set)


class OpaqueObject(NftValue, frozen=True, gc=False, kw_only=True):
    """An object in one of our tables that has no type here, or one of a type that has, with attributes that it has no field for.

    Nothing plans one; it may be deleted, or replaced by the value of the same identity. `kind` is table, chain, set, object (a
    counter, a quota, a limit, … that rules refer to; `number` is its NFT_OBJECT_ type) or flowtable.
    """

    kind: str
    name: str = ""
    number: int = 0
    content: bytes

    @property
    def identity(self) -> Identity:
        place = (f"nft {self.kind}", self.netns, self.family, self.table)
        return {"table": place, "object": (*place, self.number, self.name)}.get(self.kind, (*place, self.name))
