"""What the plugin and the agent say to each other on a Unix socket (SOCK_STREAM). Pure.

    request   length of the rest (32 bits, big-endian), variables as `NAME=value` each with a zero behind it, a zero, standard input
              with its first byte: descriptors (SCM_RIGHTS), of which PODPLANE_FDS says what each is
    answer    exit status (a byte), standard output, end

The plugin sends each CNI_* of its environment, and says of itself:

    PODPLANE_FDS           what the descriptors are, with commas between, of these:
                           netns   the network namespace CNI_NETNS
                           route   a socket of NETLINK_ROUTE that was opened in it; it is bound to nothing
                           diag    one of NETLINK_SOCK_DIAG
                           ipv6    /proc/sys/net/ipv6, opened there: through it that of this namespace is seen from everywhere
    PODPLANE_NETNS_ERROR   the errno with which CNI_NETNS could not be opened
    PODPLANE_ENTER_ERROR   the errno with which it could not be entered: then there is but `netns`
    PODPLANE_AGAIN=1       the request was sent before, and its answer did not come
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from podplane.cni.errors import CniError, Code

LENGTH = struct.Struct(">I")
REQUEST_BYTES = 1 << 20
"""At most, without the length."""
ANSWER_BYTES = 1 << 20
FDS, NETNS_ERROR, ENTER_ERROR, AGAIN = "PODPLANE_FDS", "PODPLANE_NETNS_ERROR", "PODPLANE_ENTER_ERROR", "PODPLANE_AGAIN"
NETNS, ROUTE, DIAG, IPV6 = DESCRIPTORS = ("netns", "route", "diag", "ipv6")
"""What may be passed; an agent ignores what it does not know, and does with `netns` alone where it may enter it (CAP_SYS_ADMIN)."""
SOCKET = "/run/podplane/cni.sock"
"""Where an agent listens, and a plugin asks, unless they are told otherwise."""


class Request(NamedTuple):
    """What a plugin was called with."""

    env: Mapping[str, str]
    stdin: bytes


def request(env: Mapping[str, str], stdin: bytes) -> bytes:
    """The bytes of a request. ValueError when a variable has a zero in it, or all is too long."""
    variables = [f"{name}={value}".encode(errors="surrogateescape") for name, value in env.items()]
    if any(b"\0" in one for one in variables):
        raise ValueError("embedded null byte")
    body = b"".join(one + b"\0" for one in variables) + b"\0" + stdin
    if len(body) > REQUEST_BYTES:
        raise ValueError(f"a request has at most {REQUEST_BYTES} bytes, this one {len(body)}")
    return LENGTH.pack(len(body)) + body


def length_of(head: bytes | bytearray) -> int:
    """How long the rest of a request is. CniError when it is too long."""
    length: int = LENGTH.unpack(head[: LENGTH.size])[0]
    if length > REQUEST_BYTES:
        raise CniError(Code.IO_FAILURE, f"the request has {length} bytes; {REQUEST_BYTES} are read at most")
    return length


def parse(body: bytes) -> Request:
    """A request without its length. CniError when it is none."""
    env: dict[str, str] = {}
    start = 0
    while (end := body.find(b"\0", start)) > start:
        name, equals, value = body[start:end].partition(b"=")
        if not equals:
            raise CniError(Code.IO_FAILURE, "the request has a variable without a value")
        try:
            env[name.decode()] = value.decode()
        except UnicodeDecodeError:
            shown = name.decode(errors="replace")
            raise CniError(Code.INVALID_ENVIRONMENT, f"{shown} is not UTF-8") from None
        start = end + 1
    if end < 0:
        raise CniError(Code.IO_FAILURE, "the variables of the request have no end")
    return Request(env, body[start + 1 :])


def answer(status: int, stdout: bytes = b"") -> bytes:
    """The bytes of an answer."""
    return bytes((status,)) + stdout
