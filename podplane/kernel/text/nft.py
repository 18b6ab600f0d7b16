"""Values of nf_tables as `nft list table` writes them.

A rule is a row of instructions; reading it back means following what each register holds. What podplane's rules don't use is shown
in brackets as it is, so that nothing is ever left out silently.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from podplane.state import nft
from podplane.state.nft import Chain, Element, Expression, NamedCounter, NftValue, Rule, Set, Table, Verdict
from podplane.state.nft_members import Members
from podplane.state.value import Value

PRIORITIES = {
    ("nat", "postrouting", 100): "srcnat",
    ("nat", "prerouting", -100): "dstnat",
    ("filter", "prerouting", -90): "dstnat + 10",
    **{("filter", hook, -150): "mangle" for hook in ("prerouting", "input", "forward", "output", "postrouting")},
    **{("filter", hook, -10): "filter - 10" for hook in ("input", "forward")},
    **{("filter", hook, 0): "filter" for hook in ("prerouting", "input", "forward", "output", "postrouting")},
}
NETWORK_FIELDS = {(12, 4): "ip saddr", (16, 4): "ip daddr", (8, 16): "ip6 saddr", (24, 16): "ip6 daddr"}
META = {3: "meta mark", 19: "meta pkttype", 6: "iifname", 7: "oifname", 15: "meta nfproto", 16: "meta l4proto"}
CT = {0: "ct state", 1: "ct direction", 2: "ct status", 3: "ct mark", 20: "ct original ip daddr", 22: "ct original ip6 daddr"}
BITS = {0: {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}, 2: {8: "confirmed", 32: "dnat"}}
CT_DIRECTIONS = {b"\0": "original", b"\1": "reply"}
NETWORK_BYTES = {(4, 8): "ip ttl", (6, 7): "ip6 hoplimit", (6, 6): "ip6 nexthdr"}
"""Bytes of headers, by IP version and offset."""
L4_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 58: "ipv6-icmp", 132: "sctp"}
NEXT_HEADERS = {"ip6 nexthdr": {0: "ip", **L4_NAMES}}
"""What nft calls values of these (of hop-by-hop options, by /etc/protocols)."""
FRAGMENT_OFFSET = nft.Payload(dreg=1, base=1, offset=6, length=2)
IS_TCP, TCP_FLAGS = "meta l4proto tcp", nft.Payload(dreg=1, base=2, offset=13, length=1)
FLAG_NAMES = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
DYNSET = {0: "add", 1: "update", 2: "delete"}
LINK_FIELDS = {0: "ether daddr", 6: "ether saddr"}
ETHERTYPES = {b"\x08\x00": (4, "ip"), b"\x86\xdd": (6, "ip6")}
PACKET_TYPES = {0: "host", 1: "broadcast", 2: "multicast", 3: "other"}
REJECTIONS = {(1, 0): "reject with tcp reset", (2, 1): "reject"}
ADDRESS_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast"}
"""RTN_*."""
VERDICTS = {nft.ACCEPT: "accept", nft.DROP: "drop", nft.CONTINUE: "continue", nft.RETURN: "return"}
TARGETS = {nft.JUMP: "jump", nft.GOTO: "goto"}
NAT_FLAGS = {1 << 2: "random", 1 << 3: "persistent", 1 << 4: "fully-random"}
PER_LINE = {"ipv4_addr": 2, "inet_service": 5, "mark": 5, "inet_proto": 5}
"""Elements of a named set that nft puts on one line; of other types, one."""
NEXT_LINE = ",\n\t\t\t     "


def tables(values: Iterable[Value]) -> str:
    """All tables among these values, each with what is in it, in the order given."""
    values = list(values)
    return "".join(_table(value, values) for value in values if isinstance(value, Table))


def _table(table: Table, values: Sequence[Value]) -> str:
    own = [v for v in values if isinstance(v, nft.NftValue) and (v.family, v.table) == (table.family, table.table)]
    blocks = [_counter(v) for v in own if isinstance(v, NamedCounter)]
    blocks += [_set(v, list(_elements_of(v, own))) for v in own if isinstance(v, Set)]
    blocks += [_chain(v) for v in own if isinstance(v, Chain)]
    comment = f'\tcomment "{table.comment}"\n' if table.comment else ""
    return f"table {table.family} {table.table} {{\n{comment}" + "\n".join(blocks) + "}\n"


def _counter(value: NamedCounter) -> str:
    comment = [f'\t\tcomment "{value.comment}"'] if value.comment else []
    return "\n".join([f"\tcounter {value.name} {{", *comment, "\t\tpackets 0 bytes 0", "\t}\n"])


def _elements_of(owner: Set, values: Iterable[NftValue]) -> Iterator[Element]:
    for value in values:
        if isinstance(value, Element) and value.set == owner.name:
            yield value
        elif isinstance(value, Members) and value.set == owner.name:
            yield from value.elements()


def _set(value: Set, elements: Sequence[Element]) -> str:
    kind = "map" if value.data else "set"
    types = " . ".join(value.key) + (f" : {' . '.join(value.data)}" if value.data else "")
    lines = [f"\t{kind} {value.name} {{", f"\t\ttype {types}"]
    lines += [f"\t\tsize {value.size}", "\t\tflags dynamic,timeout"] if value.is_dynamic else []
    lines += ["\t\tflags interval"] if value.interval else []
    lines += [f'\t\tcomment "{value.comment}"'] if value.comment else []
    if elements:
        lines.append("\t\telements = { " + _elements(value, [element(e, value.key, value.data) for e in elements]) + " }")
    return "\n".join([*lines, "\t}\n"])


def _elements(value: Set, texts: Sequence[str]) -> str:
    size = PER_LINE.get(value.key[0], 1) if len(value.key) == 1 else 1
    return NEXT_LINE.join(", ".join(texts[i : i + size]) for i in range(0, len(texts), size))


def element(value: Element, types: Sequence[str] = (), data_types: Sequence[str] = ()) -> str:
    """One element of a set or map of these types."""
    text = _parts(value.key, types)
    text += f' comment "{value.comment}"' if value.comment else ""
    if isinstance(value.data, Verdict):
        return f"{text} : {verdict(value.data)}"
    return f"{text} : {_parts(value.data, data_types)}" if value.data else text


def _parts(parts: Sequence[nft.Part], types: Sequence[str]) -> str:
    names = types or [""] * len(parts)
    return " . ".join(f"0x{p:08x}" if kind == "mark" else _part(p) for p, kind in zip(parts, names, strict=True))


def _part(part: nft.Part) -> str:
    if isinstance(part, ipaddress.IPv4Network | ipaddress.IPv6Network) and part.num_addresses == 1:
        return str(part.network_address)
    return str(part)


def verdict(value: Verdict) -> str:
    """What becomes of a packet."""
    return VERDICTS.get(value.code) or f"{TARGETS.get(value.code, value.code)} {value.chain}"


def _chain(value: Chain) -> str:
    lines = [f"\tchain {value.name} {{"]
    if value.hook is not None:
        hook = value.hook
        priority = PRIORITIES.get((hook.type, hook.hook, hook.priority), str(hook.priority))
        lines.append(f"\t\ttype {hook.type} hook {hook.hook} priority {priority}; policy {hook.policy};")
    lines += [f'\t\tcomment "{value.comment}"'] if value.comment else []
    return "\n".join([*lines, *(f"\t\t{rule(r)}" for r in value.rules), "\t}\n"])


def rule(value: Rule) -> str:
    """One rule."""
    words = Reader().read(value.expressions)
    return " ".join([*words, f'comment "{value.comment}"'] if value.comment else words)


class Reader:
    """Reads instructions from left to right and remembers, in nft's words, what the registers hold.

    A register that is written makes those behind it stale: programs load the parts of a key in order.
    """

    def __init__(self) -> None:
        self._words: list[str] = []
        self._held: dict[int, str] = {}
        self._load: Expression | None = None
        self._mask: nft.Bitwise | None = None
        self._version = 0
        self._implied = False

    def read(self, expressions: Iterable[Expression]) -> list[str]:
        """The words of the rule."""
        expressions = list(expressions)
        self._implied = any(isinstance(e, nft.Payload) and e.base == 1 for e in expressions)
        for expression in expressions:
            self._one(expression)
        return self._words

    def _one(self, expression: Expression) -> None:
        match expression:
            case nft.Payload(sreg=0) | nft.Meta(sreg=0) | nft.Ct(sreg=0) | nft.Fib():
                self._load, self._mask = expression, None
                self._hold(expression.dreg, self._source(expression))
            case nft.RouteLoad(key=3):
                self._load, self._mask = expression, None
                self._hold(expression.dreg, "rt mtu")
            case nft.ByteOrder() if isinstance(self._load, nft.RouteLoad):
                pass  # nft says nothing of it
            case nft.Numgen():
                how = "random" if expression.type else "inc"
                self._hold(expression.dreg, f"numgen {how} mod {expression.modulus}")
            case nft.Payload():
                self._words.append(f"{self._source(expression)} set {self._held[_place(expression.sreg)]}")
            case nft.Immediate(data=bytes() as data) if len(data) == 1:
                self._hold(expression.dreg, PACKET_TYPES.get(data[0], str(data[0])))
            case nft.Immediate(data=bytes() as data):
                self._hold(expression.dreg, f"0x{int.from_bytes(data, 'little'):08x}")
            case nft.Bitwise() if isinstance(self._load, nft.Meta) and self._load.key == 3:
                mask = int.from_bytes(expression.mask, "little")
                self._hold(expression.dreg, f"{self._held[_place(expression.sreg)]} & 0x{mask:08x}")
            case nft.Bitwise() if isinstance(self._load, nft.Ct) and self._load.key == 3:
                self._hold(expression.dreg, self._masked_mark(expression))
            case nft.Bitwise():
                self._mask = expression
            case nft.Range(op=0) if isinstance(self._load, nft.Meta) or (
                isinstance(self._load, nft.Payload) and (self._load.base == 2 or self._byte(self._load))
            ):
                low, high = (int.from_bytes(one, "big") for one in (expression.low, expression.high))
                self._words.append(f"{self._held[_place(expression.sreg)]} {low}-{high}")
            case nft.Cmp():
                self._compare(expression)
            case nft.Lookup(dreg=-1):
                self._words.append(f"{self._key(expression.sreg)} {'!= ' if expression.flags & 1 else ''}@{expression.set}")
            case nft.Lookup(dreg=0):
                self._words.append(f"{self._key(expression.sreg)} vmap @{expression.set}")
            case nft.Lookup():
                self._hold(expression.dreg, f"{self._key(expression.sreg)} map @{expression.set}")
            case nft.Ct():
                self._words.append(f"{CT[expression.key]} set {self._held[_place(expression.sreg)]}")
            case nft.Meta():
                self._words.append(f"{META[expression.key]} set {self._held[_place(expression.sreg)]}")
            case _:
                self._words.append(self._statement(expression))

    def _masked_mark(self, expression: nft.Bitwise) -> str:
        """`ct mark & 0x60000000`, `ct mark | 0x40000000`."""
        bits, held = int.from_bytes(expression.xor, "little"), self._held[_place(expression.sreg)]
        return f"{held} | 0x{bits:08x}" if bits else f"{held} & 0x{int.from_bytes(expression.mask, 'little'):08x}"

    def _statement(self, expression: Expression) -> str:
        match expression:
            case nft.Nat():
                target = self._held[_place(expression.address)]
                return f"dnat {'ip' if expression.family == 2 else 'ip6'} to {target}"
            case nft.Dynset():
                timeout = f" timeout {duration(expression.timeout)}" if expression.timeout else ""
                data = self._held[_place(expression.data)]
                key = self._key(expression.key, _place(expression.data))
                return f"{DYNSET[expression.op]} @{expression.set} {{ {key}{timeout} : {data} }}"
            case nft.Notrack():
                return "notrack"
            case nft.SetTcpOption(option=2, offset=2, length=2):
                return f"tcp option maxseg size set {self._held[_place(expression.sreg)]}"
            case nft.Reject():
                return REJECTIONS[expression.type, expression.code]
            case nft.Counter():
                return "counter packets 0 bytes 0"
            case nft.CounterReference():
                return f'counter name "{expression.name}"'
            case nft.Limit(unit=1, type=0, flags=0):
                return f"limit rate {expression.rate}/second burst {expression.burst} packets"
            case nft.Log():
                return f'log prefix "{expression.prefix}" group {expression.group}'
            case nft.Masquerade():
                flags = [name for bit, name in NAT_FLAGS.items() if expression.flags & bit]
                return " ".join(["masquerade", ",".join(flags)]).strip()
            case nft.Immediate(data=Verdict() as data):
                return verdict(data)
        return f"[ {expression} ]"

    def _hold(self, register: int, text: str) -> None:
        place = _place(register)
        self._held = {at: words for at, words in self._held.items() if at < place} | {place: text}

    def _key(self, register: int, end: int = 64) -> str:
        """The parts of a key that begins in this register."""
        begin = _place(register)
        return " . ".join(words for at, words in sorted(self._held.items()) if begin <= at < end)

    def _source(self, load: Expression) -> str:
        match load:
            case nft.Payload(base=0, length=6):
                return LINK_FIELDS.get(load.offset, f"[ {load} ]")
            case nft.Payload(base=0, offset=12, length=2):
                return "ether type"
            case nft.Payload(base=1, length=1) if self._byte(load):
                return self._byte(load)
            case nft.Payload(base=1):
                named = (load.offset, 4 if self._version == 4 else 16) if self._version else (load.offset, load.length)
                return NETWORK_FIELDS.get(named) or f"@nh,{8 * load.offset},{8 * load.length}"
            case nft.Payload(base=2, offset=0 | 2 as offset, length=2):
                return "th dport" if offset else "th sport"
            case nft.Payload(base=2):
                return f"@th,{8 * load.offset},{8 * load.length}"
            case nft.Meta():
                return META.get(load.key, f"meta {load.key}")
            case nft.Ct():
                return CT.get(load.key, f"[ {load} ]")
            case nft.Fib(result=3, flags=2):
                return "fib daddr type"
        return f"[ {load} ]"

    def _byte(self, load: nft.Payload) -> str:
        """The name of a field of one byte in the network header."""
        return NETWORK_BYTES.get((self._version, load.offset), "") if (load.base, load.length) == (1, 1) else ""

    def _compare(self, expression: nft.Cmp) -> None:
        unequal = "!= " if expression.op == 1 else ""
        if isinstance(self._load, nft.Payload) and self._load.base == 0:
            masked = "" if self._mask is None else f"& {self._mask.mask.hex(':')} {'' if unequal else '== '}"
            self._words.append(f"{self._held[_place(expression.sreg)]} {masked}{unequal}{expression.data.hex(':')}")
        elif self._words[-1:] == [IS_TCP] and self._load == TCP_FLAGS and self._mask is not None:
            self._words[-1] = f"tcp flags {_flags(expression.data)} / {_flags(self._mask.mask)}"
        elif isinstance(self._load, nft.Payload) and (self._load.base == 2 or not self._version):
            self._words.append(f"{self._held[_place(expression.sreg)]} {unequal}{self._number(expression.data)}")
        elif isinstance(self._load, nft.Meta):
            self._compare_meta(self._load, expression, unequal)
        elif self._load == FRAGMENT_OFFSET and self._version == 4 and self._mask is not None:
            bits = int.from_bytes(self._mask.mask, "big")
            self._words.append(f"ip frag-off & {bits} {unequal or '== '}{int.from_bytes(expression.data, 'big')}")
        elif isinstance(self._load, nft.Payload) and (name := self._byte(self._load)):
            value = NEXT_HEADERS.get(name, {}).get(expression.data[0], expression.data[0])
            masked = "" if self._mask is None else f"& {self._mask.mask[0]} {'' if unequal else '== '}"
            self._words.append(f"{name} {masked}{unequal}{value}")
        elif isinstance(self._load, nft.Ct) and self._load.key == 1:
            self._words.append(f"{self._held[_place(expression.sreg)]} {CT_DIRECTIONS[expression.data]}")
        elif isinstance(self._load, nft.Ct) and self._load.key == 3:
            value = int.from_bytes(expression.data, "little")
            self._words.append(f"{self._held[_place(expression.sreg)]} {unequal or '== '}0x{value:08x}")
        elif isinstance(self._load, nft.Ct) and self._load.key in BITS and self._mask is not None:
            names = [name for bit, name in BITS[self._load.key].items() if self._mask.mask[0] & bit]
            self._words.append(f"{self._held[_place(1)]} {','.join(names)}")
        elif isinstance(self._load, nft.Fib):
            kind = int.from_bytes(expression.data, "little")
            self._words.append(f"{self._held[_place(expression.sreg)]} {unequal}{ADDRESS_TYPES.get(kind, kind)}")
        else:
            self._words.append(f"{self._held[_place(expression.sreg)]} {unequal}{self._network(expression.data)}")

    def _compare_meta(self, load: nft.Meta, expression: nft.Cmp, unequal: str) -> None:
        if load.key == 15 and not unequal:  # nft leaves out what a match of addresses implies
            self._version = 4 if expression.data == b"\2" else 6
            if not self._implied:
                self._words.append(f"meta nfproto ipv{self._version}")
            return
        if load.key == 1 and not unequal and expression.data in ETHERTYPES:
            self._version, name = ETHERTYPES[expression.data]
            self._words += [] if self._implied else [f"meta protocol {name}"]
            return
        if load.key == 16:
            self._words.append(f"meta l4proto {unequal}{L4_NAMES[expression.data[0]]}")
            return
        if load.key == 19:
            self._words.append(f"meta pkttype {unequal}{PACKET_TYPES[expression.data[0]]}")
            return
        known, end, _ = expression.data.partition(b"\0")
        text = known.decode(errors="replace") + ("" if end else "*")
        self._words.append(f'{META.get(load.key, f"meta {load.key}")} {unequal}"{text}"')

    def _number(self, data: bytes) -> str:
        """What bytes are compared with that have no name."""
        value = f"0x{data.hex().lstrip('0') or '0'}"
        return value if self._mask is None else f"& 0x{self._mask.mask.hex().lstrip('0') or '0'} == {value}"

    def _network(self, data: bytes) -> str:
        size = 4 if self._version == 4 else 16
        address = ipaddress.ip_address(data.ljust(size, b"\0"))
        length = 8 * len(data) if self._mask is None else sum(byte.bit_count() for byte in self._mask.mask)
        return str(address) if length == 8 * size else f"{address}/{length}"


def _flags(data: bytes) -> str:
    return ",".join(name for bit, name in enumerate(FLAG_NAMES) if data[0] & 1 << bit)


def _place(register: int) -> int:
    """The first of the 4-byte registers that a register is made of."""
    return 4 * (register - 1) if register < 8 else register - 8


def duration(milliseconds: int) -> str:
    """As nft writes it: 3h, 1m30s."""
    seconds, text = milliseconds // 1000, ""
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size:
            text += f"{seconds // size}{name}"
            seconds %= size
    return text or "0s"
