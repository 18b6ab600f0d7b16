"""Values of nf_tables as messages of a batch, and dumped messages as values."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence

from podplane.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    be32,
    nested,
    parse_attributes,
    text,
)
from podplane.kernel.nft import constants as c
from podplane.kernel.nft import expressions
from podplane.state import nft_types as types
from podplane.state.nft import Chain, Element, Hook, NftValue, Part, Rule, Set, Table, Verdict

ELEMENTS_BYTES = 48 * 1024
"""An attribute is at most 64 KiB long, and so is the list of elements of one message."""


def _message(kind: int, value: NftValue, flags: int, *parts: bytes, label: str) -> Message:
    header = c.GENERIC.pack(c.FAMILIES[value.family], 0, 0)
    return Message(kind, flags, header + b"".join(parts), label)


def user_text(kind: int, comment: str) -> bytes:
    """A string in nft's user data: type, length, zero-terminated text of at most 127 bytes."""
    content = comment.encode()[:127] + b"\0"
    return bytes((kind, len(content))) + content


def user_data(content: bytes) -> dict[int, bytes]:
    """nft's user data by type."""
    found, offset = {}, 0
    while offset + 2 <= len(content):
        kind, length = content[offset], content[offset + 1]
        found[kind] = content[offset + 2 : offset + 2 + length]
        offset += 2 + length
    return found


def _comment(attribute_kind: int, kind: int, comment: str) -> bytes:
    return attribute(attribute_kind, user_text(kind, comment)) if comment else b""


def _comment_from(content: bytes | None, kind: int) -> str:
    return user_data(content or b"").get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _string(content: bytes) -> str:
    return content.rstrip(b"\0").decode()


def table(value: Table, delete: bool) -> list[Message]:
    """Create or delete a table; with it goes all that is in it."""
    parts = [text(c.TABLE_NAME, value.table)]
    label = f"nft table {value.family} {value.table}"
    if delete:
        return [_message(c.DELTABLE, value, 0, *parts, label=f"delete {label}")]
    parts.append(_comment(c.TABLE_USERDATA, c.COMMENT_IN_TABLE, value.comment))
    return [_message(c.NEWTABLE, value, NLM_F_CREATE, *parts, label=f"create {label}")]


def chain(value: Chain) -> Message:
    """Create a chain, without its rules."""
    parts = [text(c.CHAIN_TABLE, value.table), text(c.CHAIN_NAME, value.name)]
    if value.hook is not None:
        place = be32(c.HOOK_NUMBER, c.HOOKS[value.hook.hook])
        place += attribute(c.HOOK_PRIORITY, struct.pack(">i", value.hook.priority))
        parts.append(nested(c.CHAIN_HOOK, place))
        parts.append(be32(c.CHAIN_POLICY, c.POLICIES[value.hook.policy]))
        parts.append(text(c.CHAIN_TYPE, value.hook.type))
    parts.append(_comment(c.CHAIN_USERDATA, c.COMMENT_IN_CHAIN, value.comment))
    return _message(c.NEWCHAIN, value, NLM_F_CREATE, *parts, label=f"create nft chain {value.table} {value.name}")


def delete_chain(value: Chain) -> Message:
    """Delete a chain; it must be empty, and nothing may jump to it."""
    parts = [text(c.CHAIN_TABLE, value.table), text(c.CHAIN_NAME, value.name)]
    return _message(c.DELCHAIN, value, 0, *parts, label=f"delete nft chain {value.table} {value.name}")


def flush_chain(value: Chain) -> Message:
    """Remove all rules of a chain."""
    parts = [text(c.RULE_TABLE, value.table), text(c.RULE_CHAIN, value.name)]
    return _message(c.DELRULE, value, 0, *parts, label=f"flush nft chain {value.table} {value.name}")


def rules(value: Chain) -> list[Message]:
    """Append the chain's rules."""
    return [_rule(value, rule) for rule in value.rules]


def _rule(value: Chain, rule: Rule) -> Message:
    parts = [
        text(c.RULE_TABLE, value.table),
        text(c.RULE_CHAIN, value.name),
        nested(c.RULE_EXPRESSIONS, *map(expressions.encode, rule.expressions)),
        _comment(c.RULE_USERDATA, c.COMMENT_IN_RULE, rule.comment),
    ]
    label = f"nft rule in {value.table} {value.name}" + (f" ({rule.comment})" if rule.comment else "")
    return _message(c.NEWRULE, value, NLM_F_CREATE | NLM_F_APPEND, *parts, label=label)


def set_(value: Set, delete: bool, number: int) -> Message:
    """Create or delete a set or map; `number` names it within the batch."""
    parts = [text(c.SET_TABLE, value.table), text(c.SET_NAME, value.name)]
    if delete:
        return _message(c.DELSET, value, 0, *parts, label=f"delete nft set {value.table} {value.name}")
    many = len(value.key) > 1
    flags = (c.SET_INTERVAL if value.interval else 0) | (c.SET_CONCAT if many and value.interval else 0)
    user = bytes((c.SET_KEY_ORDER, 4)) + struct.pack("=I", types.TYPES[value.key[0]].order if not many else 0)
    parts += [be32(c.SET_KEY_TYPE, types.type_number(value.key)), be32(c.SET_KEY_LEN, types.size(value.key))]
    if value.data:
        flags |= c.SET_MAP
        parts.append(be32(c.SET_DATA_TYPE, types.type_number(value.data)))
        if value.data != ("verdict",):
            parts.append(be32(c.SET_DATA_LEN, types.size(value.data)))
            order = types.TYPES[value.data[0]].order if len(value.data) == 1 else 0
            user += bytes((c.SET_DATA_ORDER, 4)) + struct.pack("=I", order)
    if value.is_dynamic:
        flags |= c.SET_TIMEOUT | c.SET_EVAL
        parts.append(nested(c.SET_DESC, be32(c.SET_DESC_SIZE, value.size)))
    if value.comment:
        user += user_text(c.COMMENT_IN_SET, value.comment)
    parts += [be32(c.SET_FLAGS, flags), be32(c.SET_ID, number), _fields(value), attribute(c.SET_USERDATA, user)]
    label = f"create nft set {value.table} {value.name}"
    return _message(c.NEWSET, value, NLM_F_CREATE, *parts, label=label)


def _fields(value: Set) -> bytes:
    """Sizes of the parts of a concatenation: intervals of several dimensions need them (pipapo)."""
    if len(value.key) < 2 or not value.interval:
        return b""
    lengths = [nested(c.LIST_ELEM, be32(c.SET_FIELD_LEN, types.TYPES[name].size)) for name in value.key]
    return nested(c.SET_DESC, nested(c.SET_DESC_CONCAT, *lengths))


def elements(owner: Set, values: Sequence[Element], delete: bool) -> list[Message]:
    """Add or delete elements of one set, many in a message."""
    messages: list[Message] = []
    batch: list[bytes] = []
    size = 0
    for value in values:
        piece = _element(owner, value, delete)
        if size + len(piece) > ELEMENTS_BYTES:
            messages.append(_element_message(owner, batch, delete))
            batch, size = [], 0
        batch.append(piece)
        size += len(piece)
    if batch:
        messages.append(_element_message(owner, batch, delete))
    return messages


def _element_message(owner: Set, batch: Iterable[bytes], delete: bool) -> Message:
    parts = [
        text(c.ELEM_LIST_TABLE, owner.table),
        text(c.ELEM_LIST_SET, owner.name),
        nested(c.ELEM_LIST_ELEMENTS, *batch),
    ]
    verb, kind, flags = ("delete", c.DELSETELEM, 0) if delete else ("add", c.NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL)
    return _message(kind, owner, flags, *parts, label=f"{verb} elements of nft set {owner.table} {owner.name}")


def _element(owner: Set, value: Element, delete: bool) -> bytes:
    key = types.key_bytes(owner.key, value.key)
    parts = [nested(c.ELEM_KEY, expressions.data(key))]
    if owner.interval and len(owner.key) > 1:
        parts.append(nested(c.ELEM_KEY_END, expressions.data(_last(owner, value))))
    if not delete:
        if value.data is not None:
            content = value.data if isinstance(value.data, Verdict) else types.key_bytes(owner.data, value.data)
            parts.append(nested(c.ELEM_DATA, expressions.data(content)))
        parts.append(_comment(c.ELEM_USERDATA, c.COMMENT_IN_ELEMENT, value.comment))
    start = nested(c.LIST_ELEM, *parts)
    if not owner.interval or len(owner.key) > 1:
        return start
    end = _end(key, value.key[0])
    if end is None:  # an interval up to the greatest key needs no end
        return start
    flags = be32(c.ELEM_FLAGS, c.ELEM_INTERVAL_END)
    return start + nested(c.LIST_ELEM, nested(c.ELEM_KEY, expressions.data(end)), flags)


def _end(key: bytes, part: Part) -> bytes | None:
    """The first key behind an interval; None behind the greatest key."""
    size = part.num_addresses if isinstance(part, ipaddress.IPv4Network | ipaddress.IPv6Network) else 1
    after = int.from_bytes(key, "big") + size
    return None if after >> (8 * len(key)) else after.to_bytes(len(key), "big")


def _last(owner: Set, value: Element) -> bytes:
    """The greatest key of an element whose parts may be networks."""
    parts = tuple(
        part.broadcast_address if isinstance(part, ipaddress.IPv4Network | ipaddress.IPv6Network) else part
        for part in value.key
    )
    return types.key_bytes(owner.key, parts)


# --- and back


def table_from(content: bytes) -> Table:
    """A dumped table."""
    found = parse_attributes(content, c.GENERIC.size)
    return Table(
        family=c.FAMILY_NAMES[content[0]],
        table=_string(found[c.TABLE_NAME]),
        comment=_comment_from(found.get(c.TABLE_USERDATA), c.COMMENT_IN_TABLE),
    )


def chain_from(content: bytes, chain_rules: tuple[Rule, ...]) -> Chain:
    """A dumped chain, with its rules."""
    found = parse_attributes(content, c.GENERIC.size)
    hook = None
    if c.CHAIN_HOOK in found:
        place = parse_attributes(found[c.CHAIN_HOOK])
        hook = Hook(
            _string(found[c.CHAIN_TYPE]),
            c.HOOK_NAMES[int.from_bytes(place[c.HOOK_NUMBER], "big")],
            struct.unpack(">i", place[c.HOOK_PRIORITY])[0],
            c.POLICY_NAMES[int.from_bytes(found[c.CHAIN_POLICY], "big")],
        )
    return Chain(
        family=c.FAMILY_NAMES[content[0]],
        table=_string(found[c.CHAIN_TABLE]),
        name=_string(found[c.CHAIN_NAME]),
        hook=hook,
        rules=chain_rules,
        comment=_comment_from(found.get(c.CHAIN_USERDATA), c.COMMENT_IN_CHAIN),
    )


def rule_from(content: bytes) -> tuple[tuple[str, str], Rule]:
    """A dumped rule, and (table, chain) that it is in. ValueError for expressions of somebody else."""
    found = parse_attributes(content, c.GENERIC.size)
    place = _string(found[c.RULE_TABLE]), _string(found[c.RULE_CHAIN])
    comment = _comment_from(found.get(c.RULE_USERDATA), c.COMMENT_IN_RULE)
    return place, Rule(expressions.decode_list(found.get(c.RULE_EXPRESSIONS, b"")), comment)


def set_from(content: bytes) -> Set:
    """A dumped set."""
    found = parse_attributes(content, c.GENERIC.size)
    flags = int.from_bytes(found.get(c.SET_FLAGS, b""), "big")
    data = _types(int.from_bytes(found[c.SET_DATA_TYPE], "big")) if flags & c.SET_MAP else ()
    return Set(
        family=c.FAMILY_NAMES[content[0]],
        table=_string(found[c.SET_TABLE]),
        name=_string(found[c.SET_NAME]),
        key=_types(int.from_bytes(found[c.SET_KEY_TYPE], "big")),
        data=data,
        interval=bool(flags & c.SET_INTERVAL),
        size=_size(found) if flags & c.SET_EVAL else 0,
        comment=_comment_from(found.get(c.SET_USERDATA), c.COMMENT_IN_SET),
    )


def _size(found: dict[int, bytes]) -> int:
    return int.from_bytes(parse_attributes(found[c.SET_DESC])[c.SET_DESC_SIZE], "big")


def _types(number: int) -> tuple[str, ...]:
    if number == types.VERDICT_TYPE:
        return ("verdict",)
    names = {kind.number: name for name, kind in types.TYPES.items()}
    parts = []
    while number:
        parts.append(names[number & (1 << types.TYPE_BITS) - 1])
        number >>= types.TYPE_BITS
    return tuple(reversed(parts))


def elements_from(owner: Set, content: bytes) -> list[tuple[bytes, bool, Element]]:
    """(key, is it an interval's end, element) of each in a dumped list; networks are found by `join_intervals`."""
    found = parse_attributes(content, c.GENERIC.size)
    result = []
    for _, piece in attributes(found.get(c.ELEM_LIST_ELEMENTS, b"")):
        parts = parse_attributes(piece)
        if c.ELEM_KEY not in parts:
            continue
        key = expressions.data_from(parts[c.ELEM_KEY])
        last = expressions.data_from(parts[c.ELEM_KEY_END]) if c.ELEM_KEY_END in parts else key
        if isinstance(key, Verdict) or isinstance(last, Verdict):
            continue
        end = bool(int.from_bytes(parts.get(c.ELEM_FLAGS, b""), "big") & c.ELEM_INTERVAL_END)
        result.append((key, end, _element_from(owner, parts, key, last)))
    return result


def _element_from(owner: Set, parts: dict[int, bytes], key: bytes, last: bytes) -> Element:
    low = types.key_parts(owner.key, key)
    high = types.key_parts(owner.key, last)
    data: tuple[Part, ...] | Verdict | None = None
    if c.ELEM_DATA in parts:
        content = expressions.data_from(parts[c.ELEM_DATA])
        data = content if isinstance(content, Verdict) else types.key_parts(owner.data, content)
    spans = owner.interval and len(owner.key) > 1
    return Element(
        family=owner.family,
        table=owner.table,
        set=owner.name,
        key=tuple(_span(a, b) for a, b in zip(low, high, strict=True)) if spans else low,
        data=data,
        comment=_comment_from(parts.get(c.ELEM_USERDATA), c.COMMENT_IN_ELEMENT),
    )


def _span(low: Part, high: Part) -> Part:
    """The network from `low` to `high`; addresses of an interval set are networks too."""
    if isinstance(low, ipaddress.IPv4Address) and isinstance(high, ipaddress.IPv4Address):
        return next(ipaddress.summarize_address_range(low, high))
    if isinstance(low, ipaddress.IPv6Address) and isinstance(high, ipaddress.IPv6Address):
        return next(ipaddress.summarize_address_range(low, high))
    return low


def join_intervals(owner: Set, found: list[tuple[bytes, bool, Element]]) -> list[Element]:
    """Elements of a plain interval set: each start and the end behind it make a network."""
    if not owner.interval or len(owner.key) > 1:
        return [element for _, end, element in found if not end]
    ordered = sorted(found, key=lambda row: (row[0], not row[1]))
    joined = []
    for position, (_, end, element) in enumerate(ordered):
        low = element.key[0]
        if end or not isinstance(low, ipaddress.IPv4Address | ipaddress.IPv6Address):
            continue
        after = ordered[position + 1][0] if position + 1 < len(ordered) else None
        limit = int.from_bytes(after, "big") if after is not None else 1 << low.max_prefixlen
        high = type(low)(limit - 1)
        key = (_span(low, high),)
        joined.append(
            Element(
                family=element.family,
                table=element.table,
                set=element.set,
                key=key,
                data=element.data,
                comment=element.comment,
            )
        )
    return joined
