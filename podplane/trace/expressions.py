"""Expressions of nf_tables as functions of a packet at a hook: each says whether its rule goes on.

Registers are bytes, as in the kernel: what an expression loads fills whole registers of four bytes, the rest is zero.
Host byte order is little endian. What can't be known from the values (an interface's index, the length of time) ends the
evaluation with `Undecided`, never with a guess.

Sources: net/netfilter/nft_*.c, include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podplane.state import nft
from podplane.state.nft import Verdict
from podplane.state.value import IPAddress
from podplane.trace import conntrack
from podplane.trace import packet as packets
from podplane.trace.conntrack import Range, Track
from podplane.trace.jenkins import jhash
from podplane.trace.memory import Memory, SetName
from podplane.trace.packet import Packet
from podplane.trace.sets import Index

BREAK, GO_ON = False, True
Step = Callable[["Context"], bool]
NAME_SIZE = 16
NFPROTO = {4: 2, 6: 10}
LOOPBACK: dict[int, IPAddress] = {4: ipaddress.IPv4Address("127.0.0.1"), 6: ipaddress.IPv6Address("::1")}
INVERTED, UPPER_LIMIT = 1, 1
ALLOWED_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}


class Undecided(Exception):
    """The values don't say where the packet goes, and why."""


@dataclass(slots=True)
class Context:
    """A packet at a hook, and everything that an expression may ask or change.

    `fib` answers (result, flags) as bytes; `own_address` gives the address for masquerade or redirect of a link; `exceeds`
    says whether a limit is exceeded; `choose` gives a number below its argument.
    """

    packet: Packet
    netns: str
    hook: str
    memory: Memory
    choose: Callable[[int], int]
    exceeds: Callable[[nft.Limit], bool]
    fib: Callable[[Context, int, int], bytes]
    own_address: Callable[[Context, str], IPAddress | None]
    link_in: str = ""
    link_out: str = ""
    bridge_in: str = ""
    bridge_out: str = ""
    track: Track | None = None
    registers: bytearray = field(default_factory=lambda: bytearray(64))
    verdict: Verdict | None = None
    rejected: str = ""
    found: list[nft.Element] = field(default_factory=list)

    def begin_rule(self) -> None:
        """A rule begins without a verdict; registers stay as they are."""
        self.verdict = None
        self.found.clear()

    def load(self, register: int, content: bytes) -> None:
        """Fill a register, and with zeros the rest of its last four bytes."""
        start = place(register)
        padded = content + bytes(-len(content) & 3)
        self.registers[start : start + len(padded)] = padded

    def read(self, register: int, length: int) -> bytes:
        """The first bytes from a register on."""
        start = place(register)
        return bytes(self.registers[start : start + length])


def place(register: int) -> int:
    """Where a register begins among the 64 bytes: 1-4 are of sixteen bytes, 8-23 of four."""
    return (register - 1) * 16 if register < 8 else (register - 8) * 4


@dataclass(frozen=True, slots=True)
class Scope:
    """The table in which expressions find sets by name."""

    netns: str
    family: str
    table: str
    sets: Mapping[str, Index]

    def key(self, name: str) -> SetName:
        """Of a set, in a memory."""
        return (self.netns, self.family, self.table, name)

    def index(self, name: str) -> Index:
        """A set. Undecided when it is not there: the kernel would not have taken the rule."""
        if name not in self.sets:
            raise Undecided(f"the rules look into set {name} of table {self.family} {self.table}, which is not there")
        return self.sets[name]


def compile_expression(expression: nft.Expression, scope: Scope) -> Step:
    """The function of an expression. One that is not known makes the evaluation undecided when a packet gets there."""
    maker = MAKERS.get(type(expression))
    if maker is None:
        return _undecided(f"expression {expression} is not known")
    return maker(expression, scope)


def _undecided(why: str) -> Step:
    def stop(_: Context) -> bool:
        raise Undecided(why)

    return stop


def _header(context: Context, base: int) -> bytes:
    match base:
        case 0:
            return packets.link_header(context.packet)
        case 1:
            return packets.network_header(context.packet)
        case 2:
            return packets.transport_header(context.packet)
    raise Undecided(f"payload base {base} is not known")


def _address_load(base: int, offset: int, length: int) -> Callable[[Packet], bytes] | None:
    """The quick way to a whole address of an IPv4 or IPv6 header, by far the most frequent load."""
    attribute = {
        (1, 12, 4): (4, "source"),
        (1, 16, 4): (4, "destination"),
        (1, 8, 16): (6, "source"),
        (1, 24, 16): (6, "destination"),
    }
    found = attribute.get((base, offset, length))
    if found is None:
        return None
    version, name = found

    def load(packet: Packet) -> bytes:
        if packet.version == version:
            address: bytes = getattr(packet, name).packed
            return address
        return packets.network_header(packet)[offset : offset + length]

    return load


def _payload(e: nft.Payload, _: Scope) -> Step:
    source = e.sreg
    if source:
        return lambda context: write_payload(context, e.base, e.offset, context.read(source, e.length))
    quick, end = _address_load(e.base, e.offset, e.length), e.offset + e.length

    def load(context: Context) -> bool:
        if quick is not None:
            content = quick(context.packet)
        else:
            header = _header(context, e.base)
            content = header[e.offset : end]
        if len(content) < e.length:
            if e.base == 2 and context.packet.protocol not in packets.PROTOCOLS:
                raise Undecided(f"what follows the IP header of protocol {context.packet.protocol} is not known")
            return BREAK
        context.load(e.dreg, content)
        return GO_ON

    return load


WRITERS: dict[int, tuple[Callable[[Packet], bytes], Callable[[Packet, bytes], Packet]]] = {
    0: (packets.link_header, packets.with_link_header),
    1: (packets.network_header, packets.with_network_header),
    2: (packets.transport_header, packets.with_transport_header),
}


def write_payload(context: Context, base: int, offset: int, content: bytes) -> bool:
    """Put bytes into a header of the packet."""
    if base not in WRITERS:
        raise Undecided(f"payload base {base} is not known")
    read, write = WRITERS[base]
    header = bytearray(read(context.packet))
    if offset + len(content) > len(header):
        return BREAK
    header[offset : offset + len(content)] = content
    context.packet = write(context.packet, bytes(header))
    return GO_ON


def _name(link: str) -> bytes:
    return link.encode().ljust(NAME_SIZE, b"\0")


META_MARK, META_NFPROTO, META_PKTTYPE = 3, 15, 19
META: dict[int, Callable[[Context], bytes]] = {
    1: lambda c: packets.ETHERTYPE[c.packet.version].to_bytes(2, "big"),
    META_MARK: lambda c: c.packet.mark.to_bytes(4, "little"),
    6: lambda c: _name(c.link_in),
    7: lambda c: _name(c.link_out),
    META_NFPROTO: lambda c: bytes((NFPROTO[c.packet.version],)),
    16: lambda c: bytes((c.packet.protocol_number,)),
    17: lambda c: _name(c.bridge_in),
    18: lambda c: _name(c.bridge_out),
    META_PKTTYPE: lambda c: bytes((c.packet.pkttype,)),
}
"""NFT_META_*: protocol, mark, iifname, oifname, nfproto, l4proto, ibrname, obrname, pkttype."""


def _bridge_family(_: Context) -> bytes:
    return bytes((7,))  # NFPROTO_BRIDGE


def _meta(e: nft.Meta, scope: Scope) -> Step:
    if not e.dreg:
        return _set_meta(e)
    get = META.get(e.key)
    if e.key == META_NFPROTO and scope.family == "bridge":
        get = _bridge_family
    if get is None:
        return _undecided(f"meta key {e.key} is not known from values")

    def load(context: Context) -> bool:
        context.load(e.dreg, get(context))
        return GO_ON

    return load


def _set_meta(e: nft.Meta) -> Step:
    def mark(context: Context) -> bool:
        value = int.from_bytes(context.read(e.sreg, 4), "little")
        context.packet = msgspec.structs.replace(context.packet, mark=value)
        return GO_ON

    def pkttype(context: Context) -> bool:
        value, now = context.read(e.sreg, 1)[0], context.packet.pkttype
        if value != now and value <= packets.OTHER and now <= packets.OTHER:  # skb_pkt_type_ok
            context.packet = msgspec.structs.replace(context.packet, pkttype=value)
        return GO_ON

    known = {META_MARK: mark, META_PKTTYPE: pkttype}
    return known.get(e.key) or _undecided(f"meta key {e.key} can't be set here")


CT_STATE, CT_MARK = 0, 3


def _ct_value(key: int, direction: int, seen: Track) -> bytes | None:
    """What connection tracking says; None: it says nothing, the rule ends."""
    connection = seen.connection
    if connection is None:
        return None
    tuple_ = connection.reply if direction == 1 else connection.original
    match key:
        case 1:
            return bytes((seen.is_reply,))
        case 2:
            return connection.status.to_bytes(4, "little")
        case 3:
            return connection.mark.to_bytes(4, "little")
        case 7:
            return bytes((NFPROTO[connection.original.source.version],))
        case 8 | 19 | 21:
            return _if_family(key, tuple_.source)
        case 9 | 20 | 22:
            return _if_family(key, tuple_.destination)
        case 10:
            return bytes((packets.PROTOCOLS.get(tuple_.protocol) or int(tuple_.protocol),))
        case 11:
            return tuple_.source_port.to_bytes(2, "big")
        case 12:
            return tuple_.destination_port.to_bytes(2, "big")
    raise Undecided(f"ct key {key} is not known from values")


def _if_family(key: int, address: IPAddress) -> bytes | None:
    """An address of the family that the key is for: 19 and 20 are IPv4's, 21 and 22 IPv6's, 8 and 9 of any."""
    wanted = {19: 4, 20: 4, 21: 6, 22: 6}.get(key, address.version)
    return address.packed if address.version == wanted else None


def _ct(e: nft.Ct, _: Scope) -> Step:
    def load(context: Context) -> bool:
        seen = context.track or Track("invalid")
        if e.key == CT_STATE:
            context.load(e.dreg, ALLOWED_STATES[seen.state].to_bytes(4, "little"))
            return GO_ON
        direction = e.direction if e.direction in (0, 1) else int(seen.is_reply)
        content = _ct_value(e.key, direction, seen)
        if content is None:
            return BREAK
        context.load(e.dreg, content)
        return GO_ON

    def set_mark(context: Context) -> bool:
        seen = context.track
        if seen is not None and seen.connection is not None:
            mark = int.from_bytes(context.read(e.sreg, 4), "little")
            seen.connection = msgspec.structs.replace(seen.connection, mark=mark)
        return GO_ON

    if e.dreg:
        return load
    return set_mark if e.key == CT_MARK else _undecided(f"ct key {e.key} can't be set here")


COMPARE: dict[int, Callable[[bytes, bytes], bool]] = {
    0: lambda a, b: a == b,
    1: lambda a, b: a != b,
    2: lambda a, b: a < b,
    3: lambda a, b: a <= b,
    4: lambda a, b: a > b,
    5: lambda a, b: a >= b,
}
"""NFT_CMP_*: bytes compare as the kernel's memcmp does."""


def _cmp(e: nft.Cmp, _: Scope) -> Step:
    compare, length, data = COMPARE[e.op], len(e.data), e.data
    start = place(e.sreg)
    return lambda context: compare(bytes(context.registers[start : start + length]), data)


def _range(e: nft.Range, _: Scope) -> Step:
    length, wanted = len(e.low), e.op == 0
    return lambda context: (e.low <= context.read(e.sreg, length) <= e.high) == wanted


def _bitwise(e: nft.Bitwise, _: Scope) -> Step:
    mask, xor = int.from_bytes(e.mask, "big"), int.from_bytes(e.xor, "big")

    def compute(context: Context) -> bool:
        value = int.from_bytes(context.read(e.sreg, e.length), "big")
        context.load(e.dreg, (value & mask ^ xor).to_bytes(e.length, "big"))
        return GO_ON

    return compute


def _lookup(e: nft.Lookup, scope: Scope) -> Step:
    name = scope.key(e.set)

    def compute(context: Context) -> bool:
        index = scope.index(e.set)
        key = context.read(e.sreg, index.key_size)
        added = context.memory.elements.get(name, {}).get(key) if index.value.is_dynamic else None
        element = None if added is not None else index.find(key)
        is_there = added is not None or element is not None
        if index.is_opaque and not is_there:
            raise Undecided(f"set {e.set} of table {scope.family} {scope.table} has elements that are not known")
        if is_there == bool(e.flags & INVERTED):
            return BREAK
        if element is not None:
            context.found.append(element)
        if e.dreg >= 0 and is_there:
            _give(context, e.dreg, index, element, added)
        return GO_ON

    return compute


def _give(context: Context, register: int, index: Index, element: nft.Element | None, added: bytes | None) -> None:
    """What a map has for a key: into a register, or, of a verdict map, as the verdict."""
    if element is not None and isinstance(element.data, Verdict):
        context.verdict = element.data
    else:
        context.load(register, added if element is None else index.data(element))  # type: ignore[arg-type]  # one of the two


def _immediate(e: nft.Immediate, _: Scope) -> Step:
    def load(context: Context) -> bool:
        if isinstance(e.data, Verdict):
            context.verdict = e.data
        else:
            context.load(e.dreg, e.data)
        return GO_ON

    return load


def _nothing(_: Any, __: Scope) -> Step:
    return lambda _: GO_ON


def _translate(context: Context, end: int, wanted: Range) -> bool:
    """Decide one end's translation, which ends the chain with accept. What is not tracked is not translated."""
    if context.track is not None:
        known = context.memory.connections.get(context.netns, {})
        conntrack.choose_translation(context.track, end, wanted, known, context.choose)
    context.verdict = Verdict(nft.ACCEPT)
    return GO_ON


def _port(context: Context, register: int) -> int:
    return int.from_bytes(context.read(register, 2), "big") if register else 0


def _own(context: Context, link: str) -> IPAddress | None:
    address = context.own_address(context, link)
    if address is None:
        context.verdict = Verdict(nft.DROP)
    return address


def _masquerade(e: nft.Masquerade, _: Scope) -> Step:
    def apply(context: Context) -> bool:
        address = _own(context, context.link_out)
        if address is None:
            return GO_ON
        return _translate(context, conntrack.SOURCE, Range(address, flags=e.flags))

    return apply


def _redirect(e: nft.Redirect, _: Scope) -> Step:
    def apply(context: Context) -> bool:
        is_sent = context.hook == "output"
        address = LOOPBACK[context.packet.version] if is_sent else _own(context, context.link_in)
        if address is None:
            return GO_ON
        low, high = _port(context, e.port), _port(context, e.port_max or e.port)
        return _translate(context, conntrack.DESTINATION, Range(address, low, high, e.flags))

    return apply


def _nat(e: nft.Nat, _: Scope) -> Step:
    def apply(context: Context) -> bool:
        if e.family in NFPROTO.values() and e.family != NFPROTO[context.packet.version]:
            return GO_ON  # nft_nat_inet_eval: a translation for the other family does nothing
        length = 4 if context.packet.version == 4 else 16
        address = None
        if e.address:
            low, high = context.read(e.address, length), context.read(e.address_max or e.address, length)
            if low != high:
                raise Undecided("the kernel chooses among the addresses of a range by a hash that is not known")
            address = ipaddress.ip_address(low)
        ports = _port(context, e.port), _port(context, e.port_max or e.port)
        return _translate(context, e.type, Range(address, *ports, e.flags))

    return apply


REJECTIONS = {0: "icmp", 1: "tcp reset", 2: "icmpx"}
ICMPX = {4: (0, 3, 1, 13), 6: (0, 4, 3, 1)}
"""NFT_REJECT_ICMPX_* (no route, port unreachable, host unreachable, administratively prohibited) as codes of each IP version
(net/netfilter/nft_reject.c)."""
ICMP_CODES = {
    4: {0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 13: "admin prohibited"},
    6: {0: "no route", 1: "admin prohibited", 3: "host unreachable", 4: "port unreachable"},
}


def _reject(e: nft.Reject, _: Scope) -> Step:
    def apply(context: Context) -> bool:
        context.verdict = Verdict(nft.DROP)
        if e.type == 1:
            is_answered = context.packet.protocol == "tcp" and not context.packet.tcp_flags & packets.RESET
            context.rejected = "tcp reset" if is_answered else ""
        else:
            code = ICMPX[context.packet.version][e.code] if e.type == 2 else e.code
            context.rejected = f"icmp {ICMP_CODES[context.packet.version].get(code, code)}"
        return GO_ON

    return apply


def _numgen(e: nft.Numgen, _: Scope) -> Step:
    def load(context: Context) -> bool:
        context.load(e.dreg, (context.choose(e.modulus) + e.offset).to_bytes(4, "little"))
        return GO_ON

    return load


def _hash(e: nft.Hash, _: Scope) -> Step:
    """Jenkins' hash with a given seed is computed; without one the kernel takes its own, and the symmetric hash has one always."""
    is_known = e.type == 0 and e.seed != 0

    def load(context: Context) -> bool:
        known = jhash(context.read(e.sreg, e.length), e.seed) * e.modulus >> 32 if is_known else -1
        number = known if is_known else context.choose(e.modulus)
        context.load(e.dreg, (number + e.offset).to_bytes(4, "little"))
        return GO_ON

    return load


def _fib(e: nft.Fib, _: Scope) -> Step:
    def load(context: Context) -> bool:
        context.load(e.dreg, context.fib(context, e.result, e.flags))
        return GO_ON

    return load


def _limit(e: nft.Limit, _: Scope) -> Step:
    return lambda context: context.exceeds(e) == bool(e.flags & UPPER_LIMIT)


def _notrack(_: nft.Notrack, __: Scope) -> Step:
    def apply(context: Context) -> bool:
        if context.track is None:
            context.track = Track("untracked")
        return GO_ON

    return apply


DYNSET_DELETE = 2


def _dynset(e: nft.Dynset, scope: Scope) -> Step:
    name = scope.key(e.set)

    def change(context: Context) -> bool:
        index = scope.index(e.set)
        key, own = context.read(e.key, index.key_size), context.memory.elements.setdefault(name, {})
        if e.op == DYNSET_DELETE:
            own.pop(key, None)
            return GO_ON
        if key not in own:
            if index.value.size and len(own) >= index.value.size:
                return BREAK
            own[key] = context.read(e.data, index.data_size) if index.data_size else b""
        return GO_ON

    return change


def _no_option(_: nft.SetTcpOption, __: Scope) -> Step:
    return lambda context: BREAK


MAKERS: dict[type[nft.Expression], Callable[[Any, Scope], Step]] = {
    nft.Payload: _payload,
    nft.Meta: _meta,
    nft.Ct: _ct,
    nft.Cmp: _cmp,
    nft.Range: _range,
    nft.Bitwise: _bitwise,
    nft.Lookup: _lookup,
    nft.Immediate: _immediate,
    nft.Counter: _nothing,
    nft.CounterReference: _nothing,
    nft.Log: _nothing,
    nft.Masquerade: _masquerade,
    nft.Nat: _nat,
    nft.Redirect: _redirect,
    nft.Reject: _reject,
    nft.Numgen: _numgen,
    nft.Hash: _hash,
    nft.Fib: _fib,
    nft.Limit: _limit,
    nft.Notrack: _notrack,
    nft.Dynset: _dynset,
    nft.RouteLoad: _nothing,
    nft.ByteOrder: _nothing,
    nft.SetTcpOption: _no_option,
}
"""What a route says is loaded for a TCP option only, and packets here have none."""
