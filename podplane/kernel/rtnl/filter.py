"""A socket filter (classic BPF, bpf(4)) that drops notifications which an agent does not look at, before they are queued.

A machine's neighbour tables change all the time and its other routes may be many, while few of these changes concern podplane.
Passed on are:

- all link notifications: their port id is 0 whoever asked for the change, except at creation and deletion;
- of the rest, only what another socket than `port` asked for (nlmsg_pid; it is 0 for IPv6 addresses and forwarding entries,
  whoever asked);
- routes of the owner's protocol; those that replaced another one (NLM_F_REPLACE), which may have been the owner's: the kernel
  announces no deletion of that; new ones over one link without a gateway, which may be the way to those of the owner's;
- neighbours that are permanent or carry the owner's protocol (also when they are neither any more), and static forwarding entries;
  no RTM_DELNEIGH in state FAILED: the RTM_NEWNEIGH before it has said so;
- addresses, rules, shapers and filters;
- one setting of the network that changed (forwarding, the reverse path filter), but not all those of a new link.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from podplane.kernel.netlink import NLM_F_REPLACE
from podplane.kernel.rtnl import constants as c

SO_ATTACH_FILTER = 26
INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, constant."""
LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_BYTE_AT_X = 0x20, 0x28, 0x30, 0x50
LOAD_CONSTANT, LOAD_X_CONSTANT, A_TO_X = 0x00, 0x01, 0x07
JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x15, 0x45, 0x06
FIND_ATTRIBUTE = 0xFFFF_F000 + 12
"""SKF_AD_OFF + SKF_AD_NLATTR: the offset of the attribute of type X, searched for from offset A on; 0 when there is none."""
LENGTH, TYPE, FLAGS, PORT, PAYLOAD = 0, 4, 6, 12, 16
"""Offsets of nlmsghdr's fields, and of what follows it."""
ROUTE_PROTOCOL, ROUTE_TYPE, ROUTE_ATTRIBUTES = PAYLOAD + 5, PAYLOAD + 7, PAYLOAD + c.ROUTE.size
NEIGHBOUR_FAMILY, NEIGHBOUR_STATE, NEIGHBOUR_ATTRIBUTES = PAYLOAD, PAYLOAD + 8, PAYLOAD + c.NEIGHBOUR.size
ONE_SETTING = PAYLOAD + 4 + 2 * 8
"""So long is a message of one: its family (struct netconfmsg), the index of the link, and the setting (inet_netconf_fill_devconf)."""
ALL = 0xFFFF_FFFF


class Jump(NamedTuple):
    """Go to the label `then` when the condition holds, to `otherwise` or the next instruction when it does not."""

    code: int
    value: int
    then: str
    otherwise: str = ""


class Do(NamedTuple):
    """An instruction that goes on to the next one."""

    code: int
    value: int = 0


Line = Jump | Do | str
"""An instruction, or the label of the next one."""


def attach(sock: socket.socket, owner_protocol: int, port: int) -> None:
    """Filter what this socket receives; replaces the filter that it has."""
    code = assemble(program(owner_protocol, port))
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))


def program(owner_protocol: int, port: int) -> list[Line]:
    """The filter for an owner of this protocol, whose requests come from this port id."""
    return [
        Do(LOAD_HALF, TYPE),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_NEWLINK), "pass"),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_DELLINK), "pass"),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_NEWNETCONF), "setting"),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_DELNETCONF), "drop"),
        Do(LOAD_WORD, PORT),
        Jump(JUMP_IF_EQUAL, _word(port), "drop"),
        Do(LOAD_HALF, TYPE),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_NEWROUTE), "new route"),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_DELROUTE), "route"),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_NEWNEIGH), "neighbour"),
        Jump(JUMP_IF_EQUAL, _half(c.RTM_DELNEIGH), "deleted neighbour", "pass"),
        "setting",
        Do(LOAD_WORD, LENGTH),
        Jump(JUMP_IF_EQUAL, _word(ONE_SETTING), "pass", "drop"),
        "new route",
        Do(LOAD_BYTE, ROUTE_TYPE),
        Jump(JUMP_IF_EQUAL, c.ROUTE_TYPES["unicast"], "", "route"),
        *_attribute(c.RTA_GATEWAY),
        Jump(JUMP_IF_EQUAL, 0, "", "route"),
        *_attribute(c.RTA_VIA),
        Jump(JUMP_IF_EQUAL, 0, "", "route"),
        *_attribute(c.RTA_OIF),
        Jump(JUMP_IF_EQUAL, 0, "route", "pass"),
        "route",
        Do(LOAD_BYTE, ROUTE_PROTOCOL),
        Jump(JUMP_IF_EQUAL, owner_protocol, "pass"),
        Do(LOAD_HALF, FLAGS),
        Jump(JUMP_IF_SET, _half(NLM_F_REPLACE), "pass", "drop"),
        "deleted neighbour",
        Do(LOAD_HALF, NEIGHBOUR_STATE),
        Jump(JUMP_IF_SET, _half(c.NUD_FAILED), "drop"),
        "neighbour",
        Do(LOAD_HALF, NEIGHBOUR_STATE),
        Jump(JUMP_IF_SET, _half(c.NUD_PERMANENT), "pass"),
        Do(LOAD_BYTE, NEIGHBOUR_FAMILY),
        Jump(JUMP_IF_EQUAL, c.AF_BRIDGE, "forwarding entry"),
        Do(LOAD_CONSTANT, NEIGHBOUR_ATTRIBUTES),
        Do(LOAD_X_CONSTANT, c.NDA_PROTOCOL),
        Do(LOAD_WORD, FIND_ATTRIBUTE),
        Jump(JUMP_IF_EQUAL, 0, "drop"),
        Do(A_TO_X),
        Do(LOAD_BYTE_AT_X, 4),
        Jump(JUMP_IF_EQUAL, owner_protocol, "pass", "drop"),
        "forwarding entry",
        Do(LOAD_HALF, NEIGHBOUR_STATE),
        Jump(JUMP_IF_SET, _half(c.NUD_NOARP), "pass", "drop"),
        "pass",
        Do(RETURN, ALL),
        "drop",
        Do(RETURN, 0),
    ]


def _attribute(kind: int) -> tuple[Do, ...]:
    """The offset of an attribute of a route; 0: there is none."""
    return Do(LOAD_CONSTANT, ROUTE_ATTRIBUTES), Do(LOAD_X_CONSTANT, kind), Do(LOAD_WORD, FIND_ATTRIBUTE)


def assemble(lines: Sequence[Line]) -> bytes:
    """The program as an array of struct sock_filter; jumps lead forwards only."""
    instructions: list[Jump | Do] = []
    labels: dict[str, int] = {}
    for line in lines:
        if isinstance(line, str):
            labels[line] = len(instructions)
        else:
            instructions.append(line)
    code = []
    for position, one in enumerate(instructions):
        if isinstance(one, Do):
            code.append(INSTRUCTION.pack(one.code, 0, 0, one.value))
        else:
            distances = [labels[label] - position - 1 if label else 0 for label in (one.then, one.otherwise)]
            code.append(INSTRUCTION.pack(one.code, *distances, one.value))
    return b"".join(code)


def _half(value: int) -> int:
    """What BPF, which loads in network order, makes of two bytes that the kernel wrote in its own order."""
    return int.from_bytes(struct.pack("=H", value), "big")


def _word(value: int) -> int:
    return int.from_bytes(struct.pack("=I", value), "big")
