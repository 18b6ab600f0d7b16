"""Values of nf_tables as messages of a batch; `decode` is the way back."""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from podplane.kernel.netlink import (
    ATTRIBUTE,
    NLA_F_NESTED,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    be32,
    be64,
    nested,
    text,
)
from podplane.kernel.nft import constants as c
from podplane.kernel.nft import expressions
from podplane.state import nft_types as types
from podplane.state.nft import (
    COUNTER_OBJECT,
    Chain,
    Element,
    Expression,
    NamedCounter,
    NftValue,
    OpaqueElement,
    OpaqueObject,
    Part,
    Rule,
    Set,
    Table,
    Verdict,
)
from podplane.state.nft_members import SomeMembers

KEPT_RULES = 64
"""Chains of up to so many rules are kept encoded: one of a policy with thousands is megabytes, and another one after each change."""
ELEMENTS_PER_MESSAGE = 128
"""The list of elements is an attribute of at most 64 KiB; an element with two keys of 64 bytes, data and comment takes some 440."""
MESSAGE_HEADER = 16
"""struct nlmsghdr."""
DATA_HEAD = 8
"""The headers of two attributes."""


def _message(kind: int, value: NftValue, flags: int, *parts: bytes, label: str) -> Message:
    header = c.GENERIC.pack(c.FAMILIES[value.family], 0, 0)
    return Message(kind, flags, header + b"".join(parts), label)


def user_text(kind: int, comment: str) -> bytes:
    """A string in nft's user data: type, length, zero-terminated text of at most 127 bytes."""
    content = comment.encode()[:127] + b"\0"
    return bytes((kind, len(content))) + content


def _comment(attribute_kind: int, kind: int, comment: str) -> bytes:
    return attribute(attribute_kind, user_text(kind, comment)) if comment else b""


def table(value: Table, flags: int = 0, *, known: bool = False) -> Message:
    """Create a table with these flags, which must not be there yet; or set the flags of one that is `known` to be there."""
    parts = [text(c.TABLE_NAME, value.table), _comment(c.TABLE_USERDATA, c.COMMENT_IN_TABLE, value.comment)]
    label = f"nft table {value.family} {value.table}"
    if known:
        return _message(c.NEWTABLE, value, 0, *parts, be32(c.TABLE_FLAGS, flags), label=f"change {label}")
    parts += [be32(c.TABLE_FLAGS, flags)] if flags else []
    return _message(c.NEWTABLE, value, NLM_F_CREATE | NLM_F_EXCL, *parts, label=f"create {label}")


def delete_table(value: NftValue) -> Message:
    """Delete a table with all that is in it."""
    return _message(
        c.DELTABLE, value, 0, text(c.TABLE_NAME, value.table), label=f"delete nft table {value.family} {value.table}"
    )


def chain(value: Chain, *, known: bool = False) -> Message:
    """Create a chain without its rules, which must not be there yet; or set the policy of one that is `known` to be there."""
    parts = [text(c.CHAIN_TABLE, value.table), text(c.CHAIN_NAME, value.name)]
    if value.hook is not None:
        place = be32(c.HOOK_NUMBER, c.HOOKS[value.family][value.hook.hook])
        place += attribute(c.HOOK_PRIORITY, struct.pack(">i", value.hook.priority))
        parts.append(nested(c.CHAIN_HOOK, place))
        parts.append(be32(c.CHAIN_POLICY, c.POLICIES[value.hook.policy]))
        parts.append(text(c.CHAIN_TYPE, value.hook.type))
    parts.append(_comment(c.CHAIN_USERDATA, c.COMMENT_IN_CHAIN, value.comment))
    verb, flags = ("change", 0) if known else ("create", NLM_F_CREATE | NLM_F_EXCL)
    return _message(c.NEWCHAIN, value, flags, *parts, label=f"{verb} nft chain {value.table} {value.name}")


def delete_chain(value: Chain | OpaqueObject) -> Message:
    """Delete a chain; it must be empty, and nothing may jump to it."""
    parts = [text(c.CHAIN_TABLE, value.table), text(c.CHAIN_NAME, value.name)]
    return _message(c.DELCHAIN, value, 0, *parts, label=f"delete nft chain {value.table} {value.name}")


def flush_chain(value: Chain | OpaqueObject) -> Message:
    """Remove all rules of a chain."""
    parts = [text(c.RULE_TABLE, value.table), text(c.RULE_CHAIN, value.name)]
    return _message(c.DELRULE, value, 0, *parts, label=f"flush nft chain {value.table} {value.name}")


def rules(value: Chain) -> tuple[Message, ...]:
    """Append the chain's rules. The nodes of a process have nearly the same chains."""
    return _kept_rules(value) if len(value.rules) <= KEPT_RULES else _rules(value)


def _rules(value: Chain) -> tuple[Message, ...]:
    head = c.GENERIC.pack(c.FAMILIES[value.family], 0, 0) + text(c.RULE_TABLE, value.table) + text(c.RULE_CHAIN, value.name)
    return tuple(_rule(head, value, rule) for rule in value.rules)


_kept_rules = functools.lru_cache(maxsize=512)(_rules)


def _rule(head: bytes, value: Chain, rule: Rule) -> Message:
    comment = _comment(c.RULE_USERDATA, c.COMMENT_IN_RULE, rule.comment)
    content = head + _expressions(rule.expressions) + comment
    label = f"nft rule in {value.table} {value.name}" + (f" ({rule.comment})" if rule.comment else "")
    return Message(c.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, content, label)


@functools.lru_cache(maxsize=2048)
def _expressions(row: tuple[Expression, ...]) -> bytes:
    """The nodes of a process have nearly the same rules."""
    return nested(c.RULE_EXPRESSIONS, *map(expressions.encode, row))


def delete_set(value: Set | OpaqueObject) -> Message:
    """Delete a set with its elements; no rule may look into it."""
    parts = [text(c.SET_TABLE, value.table), text(c.SET_NAME, value.name)]
    return _message(c.DELSET, value, 0, *parts, label=f"delete nft set {value.table} {value.name}")


def counter(value: NamedCounter) -> Message:
    """Create a counter, which must not be there yet; it begins at zero."""
    parts = [text(c.OBJECT_TABLE, value.table), text(c.OBJECT_NAME, value.name), be32(c.OBJECT_TYPE, COUNTER_OBJECT)]
    parts += [nested(c.OBJECT_DATA), _comment(c.OBJECT_USERDATA, c.COMMENT_IN_OBJECT, value.comment)]
    label = f"create nft counter {value.table} {value.name}"
    return _message(c.NEWOBJECT, value, NLM_F_CREATE | NLM_F_EXCL, *parts, label=label)


def delete_counter(value: NamedCounter) -> Message:
    """Delete a counter; no rule may refer to it."""
    parts = [text(c.OBJECT_TABLE, value.table), text(c.OBJECT_NAME, value.name), be32(c.OBJECT_TYPE, COUNTER_OBJECT)]
    return _message(c.DELOBJECT, value, 0, *parts, label=f"delete nft counter {value.table} {value.name}")


def delete_object(value: OpaqueObject) -> Message:
    """Delete a stateful object or a flowtable; nothing may refer to it."""
    label = f"delete nft {value.kind} {value.table} {value.name}"
    if value.kind == "flowtable":
        parts = [text(c.FLOWTABLE_TABLE, value.table), text(c.FLOWTABLE_NAME, value.name)]
        return _message(c.DELFLOWTABLE, value, 0, *parts, label=label)
    parts = [text(c.OBJECT_TABLE, value.table), text(c.OBJECT_NAME, value.name), be32(c.OBJECT_TYPE, value.number)]
    return _message(c.DELOBJECT, value, 0, *parts, label=label)


def set_(value: Set, number: int) -> Message:
    """Create a set or map, which must not be there yet; `number` names it within the batch."""
    parts = [text(c.SET_TABLE, value.table), text(c.SET_NAME, value.name)]
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
    if value.rank:
        user += bytes((c.SET_RANK, 2)) + value.rank.to_bytes(2, "big")
    if value.packed:
        user += bytes((c.SET_PACKED, 0))
    parts += [be32(c.SET_FLAGS, flags), be32(c.SET_ID, number), _fields(value), attribute(c.SET_USERDATA, user)]
    label = f"create nft set {value.table} {value.name}"
    return _message(c.NEWSET, value, NLM_F_CREATE | NLM_F_EXCL, *parts, label=label)


def _fields(value: Set) -> bytes:
    """Sizes of the parts of a concatenation: intervals of several dimensions need them (pipapo)."""
    if len(value.key) < 2 or not value.interval:
        return b""
    lengths = [nested(c.LIST_ELEM, be32(c.SET_FIELD_LEN, types.TYPES[name].size)) for name in value.key]
    return nested(c.SET_DESC, nested(c.SET_DESC_CONCAT, *lengths))


FoundElement = Element | OpaqueElement | SomeMembers
Encoder = Callable[[FoundElement], bytes]


class _Elements(NamedTuple):
    """What all messages that add, or delete, elements of one set have in common."""

    kind: int
    flags: int
    head: bytes
    label: str
    encode: Encoder


@functools.lru_cache(maxsize=256)
def _elements_of(owner: Set, delete: bool) -> _Elements:
    verb, kind, flags = ("delete", c.DELSETELEM, 0) if delete else ("add", c.NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL)
    head = c.GENERIC.pack(c.FAMILIES[owner.family], 0, 0)
    head += text(c.ELEM_LIST_TABLE, owner.table) + text(c.ELEM_LIST_SET, owner.name)
    encode = _encoder(owner.key, owner.data, owner.interval, delete)
    return _Elements(kind, flags, head, f"{verb} elements of nft set {owner.table} {owner.name}", encode)


def elements(owner: Set, values: Sequence[FoundElement], delete: bool) -> Message:
    """Add or delete elements of one set, at most ELEMENTS_PER_MESSAGE. ValueError for what is no element of this set."""
    own = _elements_of(owner, delete)
    return Message(own.kind, own.flags, own.head + nested(c.ELEM_LIST_ELEMENTS, *map(own.encode, values)), own.label)


def element_at(owner: Set, values: Sequence[FoundElement], delete: bool, offset: int) -> int | None:
    """Which of the values of the message that `elements` makes lies at this offset from the message's header; None for none."""
    own = _elements_of(owner, delete)
    end = MESSAGE_HEADER + len(own.head) + ATTRIBUTE.size
    if offset < end:
        return None
    for position, element in enumerate(map(own.encode, values)):
        end += len(element)
        if offset < end:
            return position
    return None


@functools.lru_cache(maxsize=256)
def _encoder(types_of_key: tuple[str, ...], types_of_data: tuple[str, ...], interval: bool, delete: bool) -> Encoder:
    """What makes the bytes of elements of sets of one kind. The encoder raises ValueError for what is no element of such a set."""
    size, in_parts = types.size(types_of_key), len(types_of_key) > 1
    pack_key, key_head = types.key_packer(types_of_key), _data_head(c.ELEM_KEY, size)
    key_padding = bytes(-size & 3)
    plain_data = types_of_data if types_of_data != ("verdict",) else ()
    pack_data, data_head = types.key_packer(plain_data), _data_head(c.ELEM_DATA, types.size(plain_data))
    data_padding = bytes(-types.size(plain_data) & 3)

    def encode_packed(content: bytes) -> bytes:
        key, comment = content[:size], content[size + interval :]
        start = key_head + key + key_padding + (b"" if delete else _packed_comment(comment))
        element = ATTRIBUTE.pack(ATTRIBUTE.size + len(start), c.LIST_ELEM | NLA_F_NESTED) + start
        return element + _interval_end(key, 1 << 8 * size - content[size]) if interval else element

    def encode(value: FoundElement) -> bytes:
        if isinstance(value, SomeMembers):
            return b"".join(map(encode_packed, value.contents))
        if isinstance(value, OpaqueElement):
            return _opaque_element(value, delete)
        key, data = pack_key(value.key), value.data
        start = key_head + key + key_padding
        if interval and in_parts:
            start += nested(c.ELEM_KEY_END, expressions.data(_last(types_of_key, value)))
        if not delete:
            if isinstance(data, Verdict):
                start += nested(c.ELEM_DATA, expressions.data(data))
            elif data is not None:
                start += data_head + pack_data(data) + data_padding
            start += _element_comment(value.comment)
        element = ATTRIBUTE.pack(ATTRIBUTE.size + len(start), c.LIST_ELEM | NLA_F_NESTED) + start
        return element + _interval_end(key, _addresses(value.key[0])) if interval and not in_parts else element

    return encode


def _opaque_element(value: OpaqueElement, delete: bool) -> bytes:
    if not delete:
        raise ValueError("an element that is only known as bytes can't be added")
    return value.content


def _interval_end(key: bytes, count: int) -> bytes:
    """The element behind an interval of so many keys; nothing behind one up to the greatest key."""
    end = _end(key, count)
    flags = be32(c.ELEM_FLAGS, c.ELEM_INTERVAL_END)
    return b"" if end is None else nested(c.LIST_ELEM, nested(c.ELEM_KEY, expressions.data(end)), flags)


@functools.cache
def _data_head(kind: int, size: int) -> bytes:
    """What precedes so many bytes of data in an attribute of this kind: its header, and that of the value in it."""
    return nested(kind, expressions.data(bytes(size)))[:DATA_HEAD]


@functools.lru_cache(maxsize=1024)
def _element_comment(comment: str) -> bytes:
    """Many elements have one comment."""
    return _comment(c.ELEM_USERDATA, c.COMMENT_IN_ELEMENT, comment)


@functools.lru_cache(maxsize=1024)
def _packed_comment(comment: bytes) -> bytes:
    return attribute(c.ELEM_USERDATA, bytes((c.COMMENT_IN_ELEMENT, len(comment) + 1)) + comment + b"\0")


def _addresses(part: Part) -> int:
    return part.num_addresses if isinstance(part, ipaddress.IPv4Network | ipaddress.IPv6Network) else 1


def _end(key: bytes, count: int) -> bytes | None:
    """The first key behind an interval of so many keys; None behind the greatest key."""
    after = int.from_bytes(key, "big") + count
    return None if after >> (8 * len(key)) else after.to_bytes(len(key), "big")


def _last(types_of_key: tuple[str, ...], value: Element) -> bytes:
    """The greatest key of an element whose parts may be networks."""
    parts = tuple(
        part.broadcast_address if isinstance(part, ipaddress.IPv4Network | ipaddress.IPv6Network) else part
        for part in value.key
    )
    return types.key_bytes(types_of_key, parts)


def prolonged(family: str, table: str, name: str, key: bytes, milliseconds: int) -> list[Message]:
    """The element with this key is there for so long, whether it was or not."""
    head = c.GENERIC.pack(c.FAMILIES[family], 0, 0) + text(c.ELEM_LIST_TABLE, table) + text(c.ELEM_LIST_SET, name)
    own = nested(c.ELEM_KEY, expressions.data(key))
    plain = head + nested(c.ELEM_LIST_ELEMENTS, nested(c.LIST_ELEM, own))
    timed = head + nested(c.ELEM_LIST_ELEMENTS, nested(c.LIST_ELEM, own, be64(c.ELEM_TIMEOUT, milliseconds)))
    add, delete = (Message(kind, flags, plain) for kind, flags in ((c.NEWSETELEM, NLM_F_CREATE), (c.DELSETELEM, 0)))
    return [add, delete, Message(c.NEWSETELEM, NLM_F_CREATE, timed)]
