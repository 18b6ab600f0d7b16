"""Values of nf_tables as `nft list table` writes them.

A rule is a row of instructions; reading it back means following what each register holds. What podplane's rules don't use is shown
in brackets as it is, so that nothing is ever left out silently.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from podplane.state import nft
from podplane.state.nft import Chain, Element, Expression, Rule, Set, Table, Verdict
from podplane.state.value import Value

PRIORITIES = {
    ("nat", "postrouting", 100): "srcnat",
    ("nat", "prerouting", -100): "dstnat",
    **{("filter", hook, 0): "filter" for hook in ("prerouting", "input", "forward", "output", "postrouting")},
}
NETWORK_FIELDS = {(12, 4): "ip saddr", (16, 4): "ip daddr", (8, 16): "ip6 saddr", (24, 16): "ip6 daddr"}
META = {6: "iifname", 7: "oifname", 15: "meta nfproto"}
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
    blocks = [_set(v, [e for e in own if isinstance(e, Element) and e.set == v.name]) for v in own if isinstance(v, Set)]
    blocks += [_chain(v) for v in own if isinstance(v, Chain)]
    comment = f'\tcomment "{table.comment}"\n' if table.comment else ""
    return f"table {table.family} {table.table} {{\n{comment}" + "\n".join(blocks) + "}\n"


def _set(value: Set, elements: Sequence[Element]) -> str:
    kind = "map" if value.data else "set"
    types = " . ".join(value.key) + (f" : {' . '.join(value.data)}" if value.data else "")
    lines = [f"\t{kind} {value.name} {{", f"\t\ttype {types}"]
    lines += ["\t\tflags interval"] if value.interval else []
    lines += [f'\t\tcomment "{value.comment}"'] if value.comment else []
    if elements:
        lines.append("\t\telements = { " + _elements(value, [element(e) for e in elements]) + " }")
    return "\n".join([*lines, "\t}\n"])


def _elements(value: Set, texts: Sequence[str]) -> str:
    size = PER_LINE.get(value.key[0], 1) if len(value.key) == 1 else 1
    return NEXT_LINE.join(", ".join(texts[i : i + size]) for i in range(0, len(texts), size))


def element(value: Element) -> str:
    """One element of a set or map."""
    text = " . ".join(map(str, value.key))
    text += f' comment "{value.comment}"' if value.comment else ""
    if isinstance(value.data, Verdict):
        return f"{text} : {verdict(value.data)}"
    return f"{text} : {' . '.join(map(str, value.data))}" if value.data else text


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
    """Reads instructions from left to right and remembers what the registers hold."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._load: Expression | None = None
        self._mask: nft.Bitwise | None = None
        self._version = 0

    def read(self, expressions: Iterable[Expression]) -> list[str]:
        """The words of the rule."""
        for expression in expressions:
            self._one(expression)
        return self._words

    def _one(self, expression: Expression) -> None:
        match expression:
            case nft.Payload() | nft.Meta(sreg=0):
                self._load, self._mask = expression, None
            case nft.Bitwise() if isinstance(self._load, nft.Payload):
                self._mask = expression
            case nft.Cmp():
                self._compare(expression)
            case nft.Lookup(dreg=-1):
                self._words.append(f"{self._left()} {'!= ' if expression.flags & 1 else ''}@{expression.set}")
            case nft.Counter():
                self._words.append("counter packets 0 bytes 0")
            case nft.Masquerade():
                flags = [name for bit, name in NAT_FLAGS.items() if expression.flags & bit]
                self._words.append(" ".join(["masquerade", ",".join(flags)]).strip())
            case nft.Immediate(data=Verdict() as data):
                self._words.append(verdict(data))
            case _:
                self._words.append(f"[ {expression} ]")

    def _compare(self, expression: nft.Cmp) -> None:
        unequal = "!= " if expression.op == 1 else ""
        if isinstance(self._load, nft.Meta):
            self._compare_meta(self._load, expression, unequal)
            return
        self._words.append(f"{self._left()} {unequal}{self._network(expression.data)}")

    def _compare_meta(self, load: nft.Meta, expression: nft.Cmp, unequal: str) -> None:
        if load.key == 15 and not unequal:  # nft leaves out what a match of addresses implies
            self._version = 4 if expression.data == b"\2" else 6
            return
        text = expression.data.split(b"\0")[0].decode(errors="replace")
        self._words.append(f'{META.get(load.key, f"meta {load.key}")} {unequal}"{text}"')

    def _left(self) -> str:
        """What the register was loaded with; a short load is that of a network whose prefix ends at a byte."""
        load = self._load
        if not isinstance(load, nft.Payload) or load.base != 1:
            return f"[ {load} ]"
        size = 4 if self._version == 4 else 16
        return NETWORK_FIELDS.get((load.offset, size), f"[ {load} ]")

    def _network(self, data: bytes) -> str:
        size = 4 if self._version == 4 else 16
        address = ipaddress.ip_address(data.ljust(size, b"\0"))
        length = 8 * len(data) if self._mask is None else sum(byte.bit_count() for byte in self._mask.mask)
        return str(address) if length == 8 * size else f"{address}/{length}"
