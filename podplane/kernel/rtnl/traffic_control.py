"""Shapers and filters as messages of rtnetlink, and back (tc(8)).

A token bucket filter says its burst as the time that it takes at its rate, in ticks of 64 ns, so what is read is not exactly what was
written: `same_shaper` compares times.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from podplane.kernel.netlink import Message, attribute, nested, parse_attributes, text, u32
from podplane.kernel.rtnl import constants as c
from podplane.kernel.rtnl.encode import CREATE, PUT, Index
from podplane.state.network import FILTER_PRIORITY, Qdisc, Redirect

EVERY_PROTOCOL = socket.htons(3)
"""ETH_P_ALL."""
EVERY_PACKET = c.U32_SELECTOR.pack(c.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + c.U32_KEY.pack(0, 0, 0, 0)
"""`match u32 0 0`."""
TICK_BITS = 32
U32_MAX = 0xFFFF_FFFF


def qdisc(value: Qdisc, index: Index, flags: int) -> Message:
    """RTM_NEWQDISC of a link's root."""
    header = c.TRAFFIC.pack(0, index(value.link), value.handle << 16, c.TC_H_ROOT, 0)
    rate = c.RATE.pack(0, c.TC_LINKLAYER_ETHERNET, 0, 0, 0, min(value.rate, U32_MAX))
    options = [attribute(c.TCA_TBF_PARMS, c.TBF.pack(rate, bytes(c.RATE.size), value.limit, 0, 0))]
    options.append(u32(c.TCA_TBF_BURST, value.burst))
    if value.rate > U32_MAX:
        options.append(attribute(c.TCA_TBF_RATE64, struct.pack("=Q", value.rate)))
    payload = header + text(c.TCA_KIND, value.kind) + nested(c.TCA_OPTIONS, *options)
    return Message(c.RTM_NEWQDISC, flags, payload, lambda: f"qdisc {value.kind} on {value.link}")


def delete_qdisc(value: Qdisc, index: Index) -> Message:
    """RTM_DELQDISC of a link's root: the kernel deletes it only if it has this handle."""
    header = c.TRAFFIC.pack(0, index(value.link), value.handle << 16, c.TC_H_ROOT, 0)
    return Message(c.RTM_DELQDISC, 0, header, lambda: f"qdisc {value.kind} on {value.link}")


def root_of(index: int) -> bytes:
    """Payload that asks for the qdisc at the root of a link."""
    return c.TRAFFIC.pack(0, index, 0, c.TC_H_ROOT, 0)


def filters_of(index: int, parent: int = c.TC_H_INGRESS) -> bytes:
    """Payload that asks for the filters of one half of a link's clsact."""
    return c.TRAFFIC.pack(0, index, 0, parent, 0)


def clsact(link: str, index: Index, *, delete: bool = False) -> Message:
    """The qdisc that filters lie in. Making it where it is there already changes nothing."""
    header = c.TRAFFIC.pack(0, index(link), c.CLSACT_HANDLE, c.TC_H_CLSACT, 0)
    kind, flags = (c.RTM_DELQDISC, 0) if delete else (c.RTM_NEWQDISC, PUT & CREATE)
    return Message(kind, flags, header + text(c.TCA_KIND, "clsact"), lambda: f"qdisc clsact on {link}")


def redirect(value: Redirect, index: Index) -> Message:
    """RTM_NEWTFILTER. The kernel adds it beside what has its priority: that is to be deleted before."""
    mirred = c.MIRRED.pack(0, 0, c.TC_ACT_STOLEN, 0, 0, c.TCA_EGRESS_REDIR, index(value.to))
    action = text(c.TCA_ACT_KIND, "mirred") + nested(c.TCA_ACT_OPTIONS, attribute(c.TCA_MIRRED_PARMS, mirred))
    options = [attribute(c.TCA_U32_SEL, EVERY_PACKET), nested(c.TCA_U32_ACT, nested(1, action))]
    payload = _filter(value, index) + text(c.TCA_KIND, "u32") + nested(c.TCA_OPTIONS, *options)
    return Message(c.RTM_NEWTFILTER, CREATE, payload, lambda: f"redirection of {value.link} to {value.to}")


def delete_redirect(value: Redirect, index: Index) -> Message:
    """RTM_DELTFILTER of all that has its priority."""
    return Message(c.RTM_DELTFILTER, 0, _filter(value, index), lambda: f"redirection of {value.link}")


def _filter(value: Redirect, index: Index) -> bytes:
    return c.TRAFFIC.pack(0, index(value.link), 0, c.TC_H_INGRESS, FILTER_PRIORITY << 16 | EVERY_PROTOCOL)


def link_index(payload: bytes) -> int:
    """The index of the link that a qdisc or filter is on."""
    return int(c.TRAFFIC.unpack_from(payload)[1])


def is_clsact(payload: bytes) -> bool:
    """Is this the qdisc that filters of what comes in lie in?"""
    return bool(c.TRAFFIC.unpack_from(payload)[3] == c.TC_H_CLSACT)


def decode_qdisc(payload: bytes, names: Mapping[int, str]) -> Qdisc | None:
    """The qdisc at the root of a link, whoever made it; None for others, and for one that the kernel put there itself."""
    _, index, handle, parent, _ = c.TRAFFIC.unpack_from(payload)
    if parent != c.TC_H_ROOT or not handle or index not in names:
        return None
    found = parse_attributes(payload, c.TRAFFIC.size)
    kind = found.get(c.TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    options = parse_attributes(found.get(c.TCA_OPTIONS, b"")) if kind == "tbf" else {}
    if c.TCA_TBF_PARMS not in options:
        return Qdisc(link=names[index], kind=kind, handle=handle >> 16)
    spec, _, limit, ticks, _ = c.TBF.unpack_from(options[c.TCA_TBF_PARMS])
    rate = c.RATE.unpack(spec)[-1]
    if c.TCA_TBF_RATE64 in options:
        (rate,) = struct.unpack_from("=Q", options[c.TCA_TBF_RATE64])
    burst = ticks * c.TICK_NANOSECONDS * rate // 1_000_000_000
    return Qdisc(link=names[index], kind=kind, handle=handle >> 16, rate=rate, burst=burst, limit=limit)


def same_shaper(wanted: Qdisc, found: Qdisc) -> bool:
    """Is the shaper that was read the wanted one? Bursts are as good as the kernel's own arithmetic."""
    if (wanted.kind, wanted.handle, wanted.rate, wanted.limit) != (found.kind, found.handle, found.rate, found.limit):
        return False
    ticks = _ticks(wanted)
    error = (ticks - _ticks(found)) % (1 << TICK_BITS)
    return min(error, (1 << TICK_BITS) - error) <= 2 + (ticks >> 10)


def _ticks(value: Qdisc) -> int:
    """A burst as the kernel says it, which has 32 bits for it."""
    return value.burst * 1_000_000_000 // (value.rate * c.TICK_NANOSECONDS) % (1 << TICK_BITS) if value.rate else 0


def decode_redirect(payload: bytes, names: Mapping[int, str]) -> Redirect | None:
    """The filter of what comes in by a link that has podplane's priority; None for others. One that does something else redirects to ""."""
    _, index, _, parent, info = c.TRAFFIC.unpack_from(payload)
    if parent != c.TC_H_INGRESS or info >> 16 != FILTER_PRIORITY or index not in names:
        return None
    found = parse_attributes(payload, c.TRAFFIC.size)
    options = parse_attributes(found.get(c.TCA_OPTIONS, b""))
    if c.TCA_U32_SEL not in options:
        return None  # a table of keys, or a filter that goes
    action = parse_attributes(parse_attributes(options.get(c.TCA_U32_ACT, b"")).get(1, b""))
    to = ""
    if action.get(c.TCA_ACT_KIND, b"").startswith(b"mirred\0") and options[c.TCA_U32_SEL].startswith(EVERY_PACKET):
        mirred = parse_attributes(action.get(c.TCA_ACT_OPTIONS, b"")).get(c.TCA_MIRRED_PARMS, bytes(c.MIRRED.size))
        _, _, _, _, _, what, target = c.MIRRED.unpack_from(mirred)
        to = names.get(target, "") if what == c.TCA_EGRESS_REDIR else ""
    return Redirect(link=names[index], to=to)


def is_ours(payload: bytes) -> bool:
    """Has a filter podplane's priority?"""
    return bool(c.TRAFFIC.unpack_from(payload)[4] >> 16 == FILTER_PRIORITY)
