"""Dumped messages of nf_tables as values.

Anybody may add to a table of ours what has no type here. It is never left out and never an error: it becomes an opaque value, which
equals nothing that is wanted, so that it is deleted or replaced. What is part of a rule (sets and chains without a name of their own)
comes and goes with its rule, and is left out.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator

import msgspec

from podplane.kernel.netlink import NLA_F_NESTED, attribute, attributes, be32, nested, parse_attributes
from podplane.kernel.nft import codec, expressions
from podplane.kernel.nft import constants as c
from podplane.state import nft_types as types
from podplane.state.nft import (
    COUNTER_OBJECT,
    Chain,
    Element,
    Hook,
    NamedCounter,
    OpaqueElement,
    OpaqueObject,
    Part,
    Rule,
    Set,
    Table,
    Verdict,
)

UNDECODABLE = (ValueError, LookupError, TypeError, StopIteration, struct.error)
"""What decoding raises on attributes of another shape than it knows."""
SET_COMPARED = (c.SET_FLAGS, c.SET_KEY_TYPE, c.SET_KEY_LEN, c.SET_DATA_TYPE, c.SET_DATA_LEN)
SET_UNKNOWN = frozenset(
    (c.SET_POLICY, c.SET_DEFAULT_TIMEOUT, c.SET_GC_INTERVAL, c.SET_OBJECT_TYPE, c.SET_EXPRESSION, c.SET_EXPRESSIONS)
)
"""Attributes that only sets have which `Set` can't describe."""
ELEMENT_KNOWN = frozenset((c.ELEM_KEY, c.ELEM_KEY_END, c.ELEM_DATA, c.ELEM_FLAGS, c.ELEM_USERDATA))
ELEMENT_HEADERS, COMMENT_HEADERS = 8, 6
"""Before the key of an element, and before its comment: headers of attributes and of nft's user data."""
KEY_HEADS = tuple(struct.pack("=H", c.ELEM_KEY | flag) for flag in (0, NLA_F_NESTED))
COMMENT_HEAD = struct.pack("=HB", c.ELEM_USERDATA, c.COMMENT_IN_ELEMENT)
FoundElement = Element | OpaqueElement
Row = tuple[bytes, bool, FoundElement]
"""Key, whether it is the end of an interval, and the element."""


def user_data(content: bytes) -> dict[int, bytes]:
    """nft's user data by type."""
    found, offset = {}, 0
    while offset + 2 <= len(content):
        kind, length = content[offset], content[offset + 1]
        found[kind] = content[offset + 2 : offset + 2 + length]
        offset += 2 + length
    return found


def _comment_from(content: bytes | None, kind: int) -> str:
    return user_data(content or b"").get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _string(content: bytes) -> str:
    return content.rstrip(b"\0").decode(errors="surrogateescape")


def _number(content: bytes | None) -> int:
    return int.from_bytes(content or b"", "big")


def table_flags(content: bytes) -> int:
    """Those of a dumped table (TABLE_OWNED and others)."""
    return _number(parse_attributes(content, c.GENERIC.size).get(c.TABLE_FLAGS))


def table_from(content: bytes, port: int = 0) -> Table | OpaqueObject:
    """A dumped table; opaque when it is dormant, or owned without being persistent; for who protects tables, by the socket with this
    `port`, also when a persistent one is not its own."""
    found = parse_attributes(content, c.GENERIC.size)
    family, name = c.FAMILY_NAMES[content[0]], _string(found[c.TABLE_NAME])
    flags, owner = _number(found.get(c.TABLE_FLAGS)), _number(found.get(c.TABLE_OWNER))
    is_usual = flags in (c.TABLE_PERSISTENT, c.TABLE_PROTECTED) and port in (0, owner)
    if flags and not is_usual:
        return OpaqueObject(family=family, table=name, kind="table", content=content)
    return Table(family=family, table=name, comment=_comment_from(found.get(c.TABLE_USERDATA), c.COMMENT_IN_TABLE))


def is_in_table(content: bytes, name: str) -> bool:
    """Is a dumped chain in this table? Only the table's name is looked at."""
    kind, value = next(attributes(content, c.GENERIC.size), (0, b""))
    return kind == c.CHAIN_TABLE and _string(value) == name


def chain_from(content: bytes, chain_rules: tuple[Rule, ...]) -> Chain | OpaqueObject | None:
    """A dumped chain, with its rules; None for one that is part of a rule."""
    found = parse_attributes(content, c.GENERIC.size)
    family, table, name = c.FAMILY_NAMES[content[0]], _string(found[c.CHAIN_TABLE]), _string(found[c.CHAIN_NAME])
    flags = _number(found.get(c.CHAIN_FLAGS))
    if flags & c.CHAIN_BINDING:
        return None
    try:
        hook = _hook(family, found)
    except UNDECODABLE:
        return OpaqueObject(family=family, table=table, kind="chain", name=name, content=content)
    comment = _comment_from(found.get(c.CHAIN_USERDATA), c.COMMENT_IN_CHAIN)
    return Chain(family=family, table=table, name=name, hook=hook, rules=chain_rules, comment=comment)


def _hook(family: str, found: dict[int, bytes]) -> Hook | None:
    """Where a base chain hangs. KeyError or ValueError where `Hook` has no word for it: on a device, in a network card."""
    if c.CHAIN_HOOK not in found:
        return None
    place = parse_attributes(found[c.CHAIN_HOOK])
    if place.keys() != {c.HOOK_NUMBER, c.HOOK_PRIORITY} or _number(found.get(c.CHAIN_FLAGS)) & c.CHAIN_OFFLOAD:
        raise ValueError("a hook of a device")
    return Hook(
        _string(found[c.CHAIN_TYPE]),
        c.HOOK_NAMES[family][_number(place[c.HOOK_NUMBER])],
        struct.unpack(">i", place[c.HOOK_PRIORITY])[0],
        c.POLICY_NAMES[_number(found[c.CHAIN_POLICY])],
    )


def with_rules(value: Chain, rules: tuple[Rule, ...]) -> Chain:
    """The chain with these rules."""
    return msgspec.structs.replace(value, rules=rules)


def rule_from(content: bytes) -> tuple[tuple[str, str], Rule]:
    """A dumped rule, and (table, chain) that it is in."""
    found = parse_attributes(content, c.GENERIC.size)
    place = _string(found[c.RULE_TABLE]), _string(found[c.RULE_CHAIN])
    comment = _comment_from(found.get(c.RULE_USERDATA), c.COMMENT_IN_RULE)
    return place, Rule(expressions.decode_list(found.get(c.RULE_EXPRESSIONS, b"")), comment)


def set_from(content: bytes) -> Set | OpaqueObject | None:
    """A dumped set; None for one that is part of a rule."""
    found = parse_attributes(content, c.GENERIC.size)
    family, table, name = c.FAMILY_NAMES[content[0]], _string(found[c.SET_TABLE]), _string(found[c.SET_NAME])
    if _number(found.get(c.SET_FLAGS)) & c.SET_ANONYMOUS:
        return None
    try:
        value = _set(family, table, name, found)
        if found.keys().isdisjoint(SET_UNKNOWN) and _shape(found) == _shape(_encoded(value)):
            return value
    except UNDECODABLE:
        pass
    return OpaqueObject(family=family, table=table, kind="set", name=name, content=content)


def _set(family: str, table: str, name: str, found: dict[int, bytes]) -> Set:
    flags, user = _number(found.get(c.SET_FLAGS)), found.get(c.SET_USERDATA, b"")
    return Set(
        family=family,
        table=table,
        name=name,
        key=_types(_number(found[c.SET_KEY_TYPE])),
        data=_types(_number(found[c.SET_DATA_TYPE])) if flags & c.SET_MAP else (),
        interval=bool(flags & c.SET_INTERVAL),
        size=_number(parse_attributes(found[c.SET_DESC])[c.SET_DESC_SIZE]) if flags & c.SET_EVAL else 0,
        comment=_comment_from(user, c.COMMENT_IN_SET),
        rank=_number(user_data(user).get(c.SET_RANK)),
        packed=c.SET_PACKED in user_data(user),
    )


def _encoded(value: Set) -> dict[int, bytes]:
    return parse_attributes(codec.set_(value, 0).payload, c.GENERIC.size)


def _shape(found: dict[int, bytes]) -> tuple[object, ...]:
    """What the kernel does with a set depends on this."""
    if _number(found.get(c.SET_DATA_TYPE)) == types.VERDICT_TYPE:
        found = found | {c.SET_DATA_LEN: b""}  # the kernel has a length of its own
    described = parse_attributes(found.get(c.SET_DESC, b""))
    own = {kind: described[kind] for kind in (c.SET_DESC_SIZE, c.SET_DESC_CONCAT) if kind in described}
    return (*(_number(found.get(kind)) for kind in SET_COMPARED), own)


def _types(number: int) -> tuple[str, ...]:
    if number == types.VERDICT_TYPE:
        return ("verdict",)
    names = {kind.number: name for name, kind in types.TYPES.items()}
    parts = []
    while number:
        parts.append(names[number & (1 << types.TYPE_BITS) - 1])
        number >>= types.TYPE_BITS
    return tuple(reversed(parts))


def object_from(content: bytes) -> NamedCounter | OpaqueObject:
    """A dumped stateful object."""
    found = parse_attributes(content, c.GENERIC.size)
    user = user_data(found.get(c.OBJECT_USERDATA, b""))
    if _number(found[c.OBJECT_TYPE]) == COUNTER_OBJECT and user.keys() <= {c.COMMENT_IN_OBJECT}:
        return NamedCounter(
            family=c.FAMILY_NAMES[content[0]],
            table=_string(found[c.OBJECT_TABLE]),
            name=_string(found[c.OBJECT_NAME]),
            comment=_comment_from(found.get(c.OBJECT_USERDATA), c.COMMENT_IN_OBJECT),
        )
    return OpaqueObject(
        family=c.FAMILY_NAMES[content[0]],
        table=_string(found[c.OBJECT_TABLE]),
        kind="object",
        name=_string(found[c.OBJECT_NAME]),
        number=_number(found[c.OBJECT_TYPE]),
        content=content,
    )


def count_from(content: bytes) -> tuple[str, int]:
    """Of a dumped counter: its name, and how many packets it counted."""
    found = parse_attributes(content, c.GENERIC.size)
    counts = parse_attributes(found.get(c.OBJECT_DATA, b""))
    return _string(found[c.OBJECT_NAME]), _number(counts.get(c.COUNTER_PACKETS))


def flowtable_from(content: bytes) -> OpaqueObject:
    """A dumped flowtable."""
    found = parse_attributes(content, c.GENERIC.size)
    place = c.FAMILY_NAMES[content[0]], _string(found[c.FLOWTABLE_TABLE]), _string(found[c.FLOWTABLE_NAME])
    return OpaqueObject(family=place[0], table=place[1], kind="flowtable", name=place[2], content=content)


def elements_from(owner: Set, content: bytes) -> Iterator[Row]:
    """Each element in a dumped list; networks are found by `join_intervals`."""
    found = parse_attributes(content, c.GENERIC.size)
    return (_row(owner, piece) for _, piece in attributes(found.get(c.ELEM_LIST_ELEMENTS, b"")))


def _row(owner: Set, piece: bytes) -> Row:
    parts = parse_attributes(piece)
    end = bool(_number(parts.get(c.ELEM_FLAGS)) & c.ELEM_INTERVAL_END)
    try:
        key = expressions.data_from(parts[c.ELEM_KEY])
        last = expressions.data_from(parts[c.ELEM_KEY_END]) if c.ELEM_KEY_END in parts else key
        if isinstance(key, bytes) and isinstance(last, bytes) and parts.keys() <= ELEMENT_KNOWN:
            return key, end, _element_from(owner, parts, key, last)
    except UNDECODABLE:
        pass
    return _raw_key(parts), end, _opaque_element(owner, parts)


def _raw_key(parts: dict[int, bytes]) -> bytes:
    """The bytes of a key; none for the element that stands for all others."""
    return next(attributes(parts.get(c.ELEM_KEY, b"")), (0, b""))[1]


def _opaque_element(owner: Set, parts: dict[int, bytes]) -> OpaqueElement:
    """An element that `Element` can't describe, named as the kernel wants it named for its deletion."""
    kept = [attribute(kind | NLA_F_NESTED, parts[kind]) for kind in (c.ELEM_KEY, c.ELEM_KEY_END) if kind in parts]
    if not kept:
        kept = [be32(c.ELEM_FLAGS, c.ELEM_CATCHALL)]
    raw = _raw_key(parts)
    try:
        key: tuple[Part | bytes, ...] = types.key_parts(owner.key, raw)
    except UNDECODABLE:
        key = (raw,)
    if c.ELEM_KEY_END in parts:
        key = (raw, next(attributes(parts[c.ELEM_KEY_END]), (0, b""))[1])
    return OpaqueElement(family=owner.family, table=owner.table, set=owner.name, key=key, content=nested(c.LIST_ELEM, *kept))


def _element_from(owner: Set, parts: dict[int, bytes], key: bytes, last: bytes) -> Element:
    low = types.key_parts(owner.key, key)
    data: tuple[Part, ...] | Verdict | None = None
    if c.ELEM_DATA in parts:
        content = expressions.data_from(parts[c.ELEM_DATA])
        data = content if isinstance(content, Verdict) else types.key_parts(owner.data, content)
    if owner.interval and len(owner.key) > 1:
        low = tuple(_span(a, b) for a, b in zip(low, types.key_parts(owner.key, last), strict=True))
    return Element(
        family=owner.family,
        table=owner.table,
        set=owner.name,
        key=low,
        data=data,
        comment=_comment_from(parts.get(c.ELEM_USERDATA), c.COMMENT_IN_ELEMENT),
    )


def _span(low: Part, high: Part) -> Part:
    """The network from `low` to `high`, for addresses; else the one value. ValueError for what is neither."""
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        if isinstance(low, kind) and isinstance(high, kind):
            first, *others = ipaddress.summarize_address_range(low, high)
            if others:
                raise ValueError(f"{low}-{high} is no network")
            return first
    if low != high:
        raise ValueError(f"{low}-{high} is a range")
    return low


def packed_from(owner: Set, content: bytes) -> Iterator[bytes | OpaqueElement]:
    """Each element in a dumped list of a packed set (`nft_members`)."""
    found = parse_attributes(content, c.GENERIC.size)
    size = types.size(owner.key)
    start, after = ELEMENT_HEADERS, ELEMENT_HEADERS + (size + 3 & ~3)
    comment_at = after + COMMENT_HEADERS
    for _, piece in attributes(found.get(c.ELEM_LIST_ELEMENTS, b"")):
        kind, bare = piece[after + 2 : after + 5], len(piece) == after
        if piece[2:4] in KEY_HEADS and (bare or (kind == COMMENT_HEAD and len(piece) - after == piece[after] + 3 & ~3)):
            yield piece[start : start + size] + piece[comment_at : comment_at + max(0, piece[after + 5] - 1) if not bare else 0]
        else:
            yield from _packed_row(owner, piece)


def _packed_row(owner: Set, piece: bytes) -> Iterator[bytes | OpaqueElement]:
    key, end, element = _row(owner, piece)
    if not end:
        yield element if isinstance(element, OpaqueElement) else key + element.comment.encode(errors="surrogateescape")


def join_intervals(owner: Set, found: Iterable[Row]) -> list[FoundElement]:
    """Elements of a plain interval set: each start, and the end behind it, make one."""
    if not owner.interval or len(owner.key) > 1:
        return [element for _, end, element in found if not end]
    return [_interval(owner, key, after, element) for key, after, element in _starts(found)]


def packed_intervals(owner: Set, found: Iterable[Row]) -> Iterator[bytes | OpaqueElement]:
    """The same of a packed set (`nft_members`)."""
    for key, after, element in _starts(found):
        length = _prefix_length(key, after)
        if isinstance(element, Element) and length is not None:
            yield key + bytes((length,)) + element.comment.encode(errors="surrogateescape")
        elif isinstance(other := _interval(owner, key, after, element), OpaqueElement):
            yield other


def _prefix_length(key: bytes, after: bytes | None) -> int | None:
    """Of the network from a key to the one before `after`, or to the greatest one; None where that is no network."""
    first, bits = int.from_bytes(key, "big"), 8 * len(key)
    count = (int.from_bytes(after, "big") if after is not None else 1 << bits) - first
    return bits + 1 - count.bit_length() if count > 0 and not count & (count - 1) and not first & (count - 1) else None


def _starts(found: Iterable[Row]) -> Iterator[tuple[bytes, bytes | None, FoundElement]]:
    """The first key of each interval, the key behind it (None: there is none), and its element."""
    ordered = sorted(found, key=lambda row: (row[0], not row[1]))
    for position, (key, end, element) in enumerate(ordered):
        if not end:
            yield key, ordered[position + 1][0] if position + 1 < len(ordered) else None, element


def _interval(owner: Set, key: bytes, after: bytes | None, element: FoundElement) -> FoundElement:
    """The element from `key` to the key before `after`, or to the greatest one."""
    limit = int.from_bytes(after, "big") if after is not None else 1 << 8 * len(key)
    try:
        last = types.key_parts(owner.key, (limit - 1).to_bytes(len(key), "big"))
        if isinstance(element, Element):
            return Element(
                family=element.family,
                table=element.table,
                set=element.set,
                key=(_span(element.key[0], last[0]),),
                data=element.data,
                comment=element.comment,
            )
    except UNDECODABLE:
        pass
    content = nested(c.LIST_ELEM, nested(c.ELEM_KEY, expressions.data(key)))
    if after is not None:
        flags = be32(c.ELEM_FLAGS, c.ELEM_INTERVAL_END)
        content += nested(c.LIST_ELEM, nested(c.ELEM_KEY, expressions.data(after)), flags)
    return OpaqueElement(family=owner.family, table=owner.table, set=owner.name, key=(key, after or b""), content=content)
