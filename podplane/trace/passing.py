"""Does a base chain of others let a packet pass? Pure, and as far as can be known: of some rules nobody but their extension knows.

Rules of iptables-nft have matches and targets of their own (xt), sets may have no name, extensions more state than values tell. A rule of
which it isn't known whether it applies is taken both ways. Of iptables' own matches three are read, because most firewalls begin with
them: comments, states of connections, and types of destinations.

Sources: net/netfilter/nft_compat.c (NFTA_MATCH_*, NFTA_TARGET_*), include/uapi/linux/netfilter/xt_conntrack.h and xt_addrtype.h.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from podplane.state.nft import (
    ACCEPT,
    DROP,
    GOTO,
    JUMP,
    RETURN,
    Chain,
    Expression,
    Immediate,
    Lookup,
    Opaque,
    Reject,
    Rule,
    Verdict,
)
from podplane.trace.expressions import Context, Scope, Undecided, compile_expression
from podplane.trace.memory import Connection
from podplane.trace.packet import Packet

MAX_DEPTH = 16
"""NFT_JUMP_STACK_SIZE."""
NAME, REVISION, INFO = 1, 2, 3
"""NFTA_MATCH_NAME, NFTA_MATCH_REV, NFTA_MATCH_INFO; of targets the same."""
CONNTRACK = struct.Struct("<146xHHH")
"""struct xt_conntrack_mtinfo1 to 3, little endian as the machines that this runs on: match_flags, invert_flags, state_mask."""
BY_STATE, ALIAS, IS_NEW = 1, 1 << 13, 1 << 3
"""XT_CONNTRACK_STATE, XT_CONNTRACK_STATE_ALIAS (as `-m state`), XT_CONNTRACK_STATE_BIT(IP_CT_NEW)."""
ADDRTYPE, ADDRTYPE_REVISION = struct.Struct("=HHI"), 1
"""struct xt_addrtype_info_v1: types of the source, types of the destination, flags."""
INVERT_DEST = 2
"""XT_ADDRTYPE_INVERT_DEST."""
UNICAST, LOCAL = 1, 2
"""RTN_UNICAST, RTN_LOCAL of linux/rtnetlink.h; of xt_addrtype bits."""
ENDS = ("DROP", "REJECT")
"""Targets of iptables that end a packet."""


class Answer(enum.Flag):
    """What may become of a packet in a chain: it passes; it is dropped or refused, as all that come so far; it is, if a rule applies of
    which that isn't known; it goes on behind the chain."""

    PASS = enum.auto()
    DROP = enum.auto()
    DROP_BY_RULE = enum.auto()
    GO_ON = enum.auto()


class State(NamedTuple):
    """What rules change of a context that other rules ask for."""

    packet: Packet
    connection: Connection | None

    @classmethod
    def of(cls, context: Context) -> State:
        """As it is now."""
        return cls(context.packet, None if context.track is None else context.track.connection)

    def put(self, context: Context) -> None:
        """Make a context be so."""
        context.packet = self.packet
        if context.track is not None:
            context.track.connection = self.connection


class Chains:
    """The chains of one table; `rules` gives those of a chain by its name, when they are asked for. `visit` is called for each rule that a
    packet comes to, and may raise.

    A packet comes to a chain by any number of jumps, and through chains of chains by exponentially many: what becomes of it there is worked
    out once for each state of it.
    """

    def __init__(self, family: str, table: str, rules: Callable[[str], Sequence[Rule]], visit: Callable[[], None]) -> None:
        self._scope = Scope("", family, table, {})
        self._rules, self._visit = rules, visit
        self._known: dict[str, Sequence[Rule]] = {}
        self._answers: dict[tuple[str, int, State], tuple[Answer, State]] = {}
        """Of the packet that is judged: by chain, depth and state before, with the state after."""

    def judge(self, base: Chain, context: Context) -> Answer:
        """Of a new packet in a base chain: PASS, DROP, or several where it isn't known."""
        self._answers.clear()
        found = self._chain(base.name, context, 0)
        if Answer.GO_ON in found:
            is_dropped = base.hook is not None and base.hook.policy == "drop"
            found = found & ~Answer.GO_ON | (Answer.DROP if is_dropped else Answer.PASS)
        return found

    def _chain(self, name: str, context: Context, depth: int) -> Answer:
        if depth > MAX_DEPTH:
            return Answer.DROP
        key = (name, depth, State.of(context))
        if key not in self._answers:
            found = self._through(name, context, depth)
            self._answers[key] = found, State.of(context)
        found, after = self._answers[key]
        after.put(context)
        return found

    def _through(self, name: str, context: Context, depth: int) -> Answer:
        if name not in self._known:
            self._known[name] = self._rules(name)
        found = Answer(0)
        for rule in self._known[name]:
            self._visit()
            applies = self._applies(rule, context)
            if applies is False:
                continue
            said, ends_chain = self._said(rule, context, depth), _verdict(rule) in (RETURN, GOTO)
            if applies is None and Answer.DROP in said:
                said = said & ~Answer.DROP | Answer.DROP_BY_RULE
            found |= said if ends_chain else said & ~Answer.GO_ON
            if applies is True and (ends_chain or Answer.GO_ON not in said):
                return found
        return found | Answer.GO_ON

    def _applies(self, rule: Rule, context: Context) -> bool | None:
        """None: that isn't known."""
        context.begin_rule()
        is_sure = True
        for one in rule.expressions:
            known = _extension(one, context)
            try:
                goes_on = compile_expression(one, self._scope)(context) if known is None else known
            except Undecided:
                is_sure = False
                continue
            if not goes_on and (is_sure or known is False):
                return False
        return True if is_sure else None

    def _said(self, rule: Rule, context: Context, depth: int) -> Answer:
        """What a rule does that applies."""
        for one in rule.expressions:
            match one:
                case Reject():
                    return Answer.DROP
                case Opaque(name="target") if _name(one) in ENDS:
                    return Answer.DROP
                case Opaque(name="queue"):
                    return Answer.PASS | Answer.DROP_BY_RULE
                case Opaque(name="target") if _name(one) == "NFQUEUE":
                    return Answer.PASS | Answer.DROP_BY_RULE
                case Lookup() if one.dreg == 0:
                    return Answer.PASS | Answer.DROP_BY_RULE | Answer.GO_ON
                case Immediate(data=Verdict() as verdict):
                    if verdict.code in (JUMP, GOTO):
                        return self._chain(verdict.chain, context, depth + 1)
                    return {ACCEPT: Answer.PASS, DROP: Answer.DROP}.get(verdict.code, Answer.GO_ON)
        return Answer.GO_ON


def _verdict(rule: Rule) -> int | None:
    return next((e.data.code for e in rule.expressions if isinstance(e, Immediate) and isinstance(e.data, Verdict)), None)


def destination_type(hook: str) -> int:
    """That of a packet to one machine, as routes say it at this hook."""
    return LOCAL if hook == "input" else UNICAST


def _extension(one: Expression, context: Context) -> bool | None:
    """Does an extension of iptables match a new packet? None: it isn't one, or that isn't known."""
    if not isinstance(one, Opaque):
        return None
    if one.name == "target":
        return True
    if one.name == "match" and _name(one) == "comment":
        return True
    if one.name == "match" and _name(one) == "conntrack":
        return _is_of_new(_attributes(one.content).get(INFO, b""))
    if one.name == "match" and _name(one) == "addrtype":
        return _is_to(destination_type(context.hook), _attributes(one.content))
    return None


def _is_of_new(info: bytes) -> bool | None:
    if len(info) < CONNTRACK.size:
        return None
    matched, inverted, states = CONNTRACK.unpack_from(info)
    if matched & ~ALIAS != BY_STATE:
        return None
    return bool(states & IS_NEW) != bool(inverted & BY_STATE)


def _is_to(kind: int, attributes: Mapping[int, bytes]) -> bool | None:
    """Does addrtype match a packet to a destination of this type? None where it asks for more."""
    info = attributes.get(INFO, b"")
    if int.from_bytes(attributes.get(REVISION, b""), "big") != ADDRTYPE_REVISION or len(info) < ADDRTYPE.size:
        return None
    source, destination, flags = ADDRTYPE.unpack_from(info)
    if source or flags & ~INVERT_DEST:
        return None
    return bool(destination >> kind & 1) != bool(flags)


def _name(one: Opaque) -> str:
    return _attributes(one.content).get(NAME, b"").rstrip(b"\0").decode(errors="replace")


def _attributes(content: bytes) -> Mapping[int, bytes]:
    return dict(_pairs(content))


def _pairs(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Netlink attributes: length, type, value, each filled up to four bytes."""
    offset = 0
    while offset + 4 <= len(content):
        length, kind = struct.unpack_from("=HH", content, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, content[offset + 4 : offset + length]
        offset += (length + 3) & ~3
