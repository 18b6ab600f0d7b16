"""nf_tables' values: what the codec packs it reads back, for generated keys, elements, sets, chains and expressions."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kernel import netlink
from podplane.kernel.netlink import Message, attribute, be32, be64, nested, parse_attributes
from podplane.kernel.nft import codec, decode, expressions
from podplane.kernel.nft import constants as c
from podplane.kernel.text import nft as text
from podplane.state import nft
from podplane.state import nft_types as types
from podplane.state.nft import (
    Chain,
    Cmp,
    Element,
    Expression,
    Hook,
    Immediate,
    NamedCounter,
    OpaqueObject,
    Part,
    Payload,
    Rule,
    Set,
    Table,
    Verdict,
)
from tests.unit.kernel import generated as g

PLACE = {"family": "inet", "table": "podplane-test"}
NAMES = st.text("abcdefghij-_0123456789", min_size=1, max_size=30)
COMMENTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "mark": st.integers(0, 0xFFFF_FFFF),
    "ipv4_addr": g.addresses(4),
    "ipv6_addr": g.addresses(6),
    "ether_addr": g.MACS,
    "inet_proto": st.sampled_from(("tcp", "udp", "sctp", "icmp", "ipv6-icmp", 47)),
    "inet_service": st.integers(0, 65535),
    "ifname": st.text("abcxyz0123.-", min_size=1, max_size=15),
    "integer": st.integers(0, 0xFFFF_FFFF),
}
TYPES = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4).map(tuple)
VERDICTS = st.sampled_from((nft.ACCEPT, nft.DROP, nft.CONTINUE, nft.RETURN)).map(Verdict) | st.builds(
    Verdict, st.sampled_from((nft.JUMP, nft.GOTO)), NAMES
)
NUMBER, BYTE, SHORT, LONG = (st.integers(0, (1 << bits) - 1) for bits in (32, 8, 16, 64))
FIELDS = {
    expressions.NUMBER: NUMBER,
    expressions.BYTE: BYTE,
    expressions.SHORT: SHORT,
    expressions.LONG: LONG,
    expressions.TEXT: NAMES,
    expressions.DATA: st.binary(min_size=1, max_size=16),
}


def parts(names: tuple[str, ...]) -> st.SearchStrategy[tuple[Part, ...]]:
    """Keys of these types."""
    return st.tuples(*(PARTS[name] for name in names))


@given(TYPES.flatmap(lambda names: st.tuples(st.just(names), parts(names))))
def test_keys(case: tuple[tuple[str, ...], tuple[Part, ...]]) -> None:
    names, key = case
    packed = types.key_bytes(names, key)
    assert len(packed) == types.size(names)
    assert types.key_parts(names, packed) == key


def expression_of(kind: type[Expression]) -> st.SearchStrategy[Expression]:
    """Expressions of one kind with any values in their fields."""
    if kind is Immediate:
        return st.builds(Immediate, data=VERDICTS | FIELDS[expressions.DATA])
    fields = {field: FIELDS[how] for _, field, how in expressions.TABLE[kind][1]}
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", expressions.TABLE, ids=lambda kind: str(kind.__name__))
@given(data=st.data())
def test_every_expression(kind: type[Expression], data: st.DataObject) -> None:
    value = data.draw(expression_of(kind))
    assert expressions.decode_list(expressions.encode(value)) == (value,)


def test_a_load_from_the_beginning_of_a_header() -> None:
    source_port = Payload(base=2, offset=0, length=2)
    assert expressions.decode_list(expressions.encode(source_port)) == (source_port,)


def test_what_overwrites_a_header_loads_nothing() -> None:
    """The kernel takes a `payload` with a destination register for a load (nft_payload_select_ops)."""
    write = Payload(dreg=0, sreg=1, base=0, offset=0, length=6)
    packed = expressions.encode(write)
    found = parse_attributes(parse_attributes(packed[4:])[expressions.NFTA_EXPR_DATA])
    assert 1 not in found and found[5] == b"\0\0\0\1"
    assert expressions.decode_list(packed) == (write,)


def test_an_expression_of_somebody_else_is_opaque() -> None:
    foreign = expressions.encode(nft.Notrack()).replace(b"notrack\0", b"synprox\0")
    assert expressions.decode_list(foreign) == (nft.Opaque(name="synprox", content=b""),)


@pytest.mark.parametrize(
    "strange",
    [
        netlink.nested(2, netlink.be32(1, 1), netlink.be32(2, 3), netlink.be32(77, 1)),
        netlink.nested(2, netlink.be32(1, 1), netlink.u8(2, 1)[:5]),
        netlink.nested(2),
        b"",
    ],
    ids=["an attribute that nobody knows", "a number that is cut off", "nothing that it needs", "no attributes at all"],
)
def test_attributes_that_an_expression_has_no_field_for_make_it_opaque(strange: bytes) -> None:
    content = netlink.nested(1, netlink.text(1, "meta"), strange)
    (found,) = expressions.decode_list(content)
    assert isinstance(found, nft.Opaque) and found.name == "meta"
    assert expressions.decode_list(expressions.encode(found)) == (found,), "it may be sent as it was read"


@given(st.binary(max_size=60))
def test_no_bytes_of_an_expression_are_an_error(content: bytes) -> None:
    for name in ("payload", "immediate", "lookup", "nat", "whatever"):
        element = netlink.nested(1, netlink.text(1, name), netlink.attribute(2, content))
        assert len(expressions.decode_list(element)) == 1


@given(VERDICTS | st.binary(min_size=1, max_size=64))
def test_data(value: bytes | Verdict) -> None:
    assert expressions.data_from(expressions.data(value)) == value


EXPRESSIONS = st.lists(st.sampled_from(sorted(expressions.TABLE, key=str)).flatmap(expression_of), max_size=4)


@given(st.lists(st.tuples(EXPRESSIONS, COMMENTS), max_size=4), NAMES)
def test_rules(rows: list[tuple[list[Expression], str]], name: str) -> None:
    chain = Chain(**PLACE, name=name, rules=tuple(Rule(tuple(row), comment) for row, comment in rows))
    found = [decode.rule_from(message.payload) for message in codec.rules(chain)]
    assert found == [((PLACE["table"], name), rule) for rule in chain.rules]


HOOKS = st.builds(
    Hook,
    st.sampled_from(("filter", "nat", "route")),
    st.sampled_from(("prerouting", "input", "forward", "output", "postrouting")),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.sampled_from(("accept", "drop")),
)


def test_rules_of_a_short_chain_are_kept_and_those_of_a_long_one_are_not() -> None:
    """Policies that are written again and again would leave megabytes behind each time."""
    short, long = (Chain(**PLACE, name="c", rules=(Rule(expressions=(), comment="r"),) * count) for count in (64, 65))
    assert codec.rules(short) is codec.rules(short)
    assert codec.rules(long) == codec.rules(long) and codec.rules(long) is not codec.rules(long)


@pytest.mark.parametrize(
    ("offset", "length", "name"), [(0, 2, "th sport"), (2, 2, "th dport"), (0, 4, "@th,0,32"), (2, 1, "@th,16,8")]
)
def test_fields_of_the_transport_header_have_the_names_of_nft(offset: int, length: int, name: str) -> None:
    loaded = (Payload(base=2, offset=offset, length=length), Cmp(data=bytes(length)))
    assert text.rule(Rule(expressions=loaded)).startswith(f"{name} ")


@given(st.sampled_from(("inet", "ip", "ip6", "bridge")), NAMES, st.none() | HOOKS, COMMENTS)
def test_chains_and_tables(family: str, name: str, hook: Hook | None, comment: str) -> None:
    chain = Chain(family=family, table="t", name=name, hook=hook, comment=comment)
    assert decode.chain_from(codec.chain(chain).payload, ()) == chain
    table = Table(family=family, table=name, comment=comment)
    assert decode.table_from(codec.table(table).payload) == table
    dormant = codec.table(table).payload + be32(c.TABLE_FLAGS, 1)
    assert decode.table_from(dormant) == OpaqueObject(family=family, table=name, kind="table", content=dormant)


@given(NAMES, COMMENTS, st.integers(0, (1 << 64) - 1))
def test_counters(name: str, comment: str, packets: int) -> None:
    value = NamedCounter(**PLACE, name=name, comment=comment)
    payload = codec.counter(value).payload
    assert decode.object_from(payload) == value
    assert decode.count_from(payload) == (name, 0)
    counted = payload + nested(c.OBJECT_DATA, be64(c.COUNTER_BYTES, 9), be64(c.COUNTER_PACKETS, packets))
    assert decode.count_from(counted) == (name, packets)


def test_a_counter_of_which_more_is_said_is_not_one_of_ours() -> None:
    payload = codec.counter(NamedCounter(**PLACE, name="hits")).payload
    assert isinstance(decode.object_from(payload + attribute(c.OBJECT_USERDATA, bytes((9, 1, 0)))), OpaqueObject)


@given(NAMES, TYPES, st.just(()) | st.just(("verdict",)) | TYPES, st.booleans(), COMMENTS, st.integers(0, 65535))
def test_sets(name: str, key: tuple[str, ...], data: tuple[str, ...], interval: bool, comment: str, rank: int) -> None:
    value = Set(**PLACE, name=name, key=key, data=data, interval=interval, comment=comment, rank=rank)
    assert decode.set_from(codec.set_(value, 1).payload) == value


def read(owner: Set, message: Message) -> list[decode.FoundElement]:
    """The elements of this message."""
    return decode.join_intervals(owner, decode.elements_from(owner, message.payload))


@given(st.data(), TYPES, st.just(()) | st.just(("verdict",)) | TYPES)
def test_elements(data: st.DataObject, key: tuple[str, ...], given_data: tuple[str, ...]) -> None:
    owner = Set(**PLACE, name="s", key=key, data=given_data)
    content = st.none() if not given_data else VERDICTS if given_data == ("verdict",) else parts(given_data)
    element = st.builds(Element, **{k: st.just(v) for k, v in PLACE.items()}, set=st.just("s"), key=parts(key), data=content)
    values = data.draw(st.lists(element, max_size=5))
    assert read(owner, codec.elements(owner, values, delete=False)) == values
    keys = [value.key for value in read(owner, codec.elements(owner, values, delete=True))]
    assert keys == [value.key for value in values]


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.data())
def test_networks_of_an_interval_set(version: int, data: st.DataObject) -> None:
    owner = Set(**PLACE, name="s", key=(f"ipv{version}_addr",), interval=True)
    drawn = data.draw(st.sets(g.networks(version), max_size=8))
    apart = ipaddress.collapse_addresses(drawn)  # type: ignore[type-var]  # one version
    values = [Element(**PLACE, set="s", key=(network,), comment=f"of {network}") for network in apart]
    found = read(owner, codec.elements(owner, values, delete=False))
    assert sorted(found, key=lambda e: str(e.key)) == sorted(values, key=lambda e: str(e.key))


@given(st.lists(st.integers(1, 29), min_size=1, max_size=3))
def test_neighbouring_networks_stay_apart(lengths: list[int]) -> None:
    owner = Set(**PLACE, name="s", key=("ipv4_addr",), interval=True)
    halves = ipaddress.ip_network(f"10.0.0.0/{7 + min(lengths[0], 24)}", strict=False).subnets()
    values = [Element(**PLACE, set="s", key=(half,), comment=str(half)) for half in halves]
    assert read(owner, codec.elements(owner, values, delete=False)) == values


@given(st.data())
def test_networks_of_a_concatenation(data: st.DataObject) -> None:
    owner = Set(**PLACE, name="s", key=("ipv4_addr", "inet_service"), interval=True)
    keys = data.draw(st.lists(st.tuples(g.networks(4), st.integers(0, 65535)), max_size=5))
    values = [Element(**PLACE, set="s", key=key) for key in keys]
    assert read(owner, codec.elements(owner, values, delete=False)) == values


def test_as_many_elements_as_a_message_may_have_are_no_longer_than_an_attribute_may_be() -> None:
    names = ("ipv6_addr",) * 4
    owner = Set(**PLACE, name="s", key=names, data=("ipv6_addr",), interval=True)
    address = ipaddress.ip_address("fd00::1")
    key = tuple(ipaddress.ip_network(address) for _ in names)
    value = Element(**PLACE, set="s", key=key, data=(address,), comment="c" * 127)
    message = codec.elements(owner, [value] * codec.ELEMENTS_PER_MESSAGE, delete=False)
    assert len(message.payload) < 64 * 1024


@given(st.data(), st.sampled_from((False, True)))
def test_an_element_is_found_by_the_place_of_its_attributes(data: st.DataObject, interval: bool) -> None:
    owner = Set(**PLACE, name="s", key=("ipv4_addr",), interval=interval)
    ips = data.draw(st.lists(g.networks(4) if interval else g.addresses(4), min_size=1, max_size=6))
    values = [Element(**PLACE, set="s", key=(ip,), comment="c" * data.draw(st.integers(0, 5))) for ip in ips]
    message = codec.elements(owner, values, delete=False)
    whole = netlink.encode(message, 1, 0)
    offsets = [i for i in range(0, len(whole), 4) if codec.element_at(owner, values, False, i) is not None]
    assert offsets == list(range(offsets[0], len(whole), 4)), "from the first element to the end of the message"
    found = [codec.element_at(owner, values, False, offset) for offset in offsets]
    assert sorted(found) == found and set(found) == set(range(len(values)))  # type: ignore[type-var]
    for position, value in enumerate(values):
        start = offsets[found.index(position)]
        assert whole[start:].startswith(codec._elements_of(owner, False).encode(value))
    assert codec.element_at(owner, values, False, len(whole)) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("inet_service", 65536),
        ("inet_service", -1),
        ("inet_proto", "nonsense"),
        ("ipv6_addr", ipaddress.ip_address("10.0.0.1")),
        ("ether_addr", "0a:58"),
        ("ifname", "a" * 16),
    ],
)
def test_a_part_that_is_none_of_its_type_is_refused(name: str, part: Part) -> None:
    with pytest.raises(ValueError, match="is no"):
        types.key_bytes((name,), (part,))
