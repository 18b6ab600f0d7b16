#!/usr/bin/python3 -ISB
"""podplane-cni where no C compiler was at hand: the same as podplane-cni.c, loopback.c and journal.c, but slower to start.

They say what it does. It needs the standard library only, and is copied to where container engines look for plugins.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import sys
import time

SOCKET, JOURNAL = "/run/podplane/cni.sock", "attachments.journal"
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
REQUEST_BYTES = ANSWER_BYTES = 1 << 20
WAIT_SECONDS, STATUS_WAIT_SECONDS, ANSWER_SECONDS = 30.0, 1.0, 120.0
MOST_WAIT_SECONDS = 3600.0
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.01, 0.25
INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT, IO_FAILURE, TRY_AGAIN, NOT_AVAILABLE, REFUSED, FAULTY = 1, 4, 5, 11, 50, 100, 102
NOBODY = (errno.ENOENT, errno.ECONNREFUSED)
AWAY = (*NOBODY, errno.EAGAIN)
LOST = (errno.ECONNRESET, errno.EPIPE)
STDOUT = 1
CLONE_NEWNET = 0x4000_0000
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


class Failed(Exception):
    """An error of the CNI specification: code, message, details."""


class Unheard(Exception):
    """Nobody reads the answer of an ADD any more: may the agent have attached something?"""


def version_said(stdin: bytes) -> str:
    """The version of the specification that the caller speaks."""
    try:
        version = json.loads(stdin)["cniVersion"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return VERSIONS[-1]
    return version if isinstance(version, str) else VERSIONS[-1]


def read_stdin() -> bytes:
    """The configuration."""
    try:
        stdin = sys.stdin.buffer.read(REQUEST_BYTES + 1)
    except OSError as error:
        raise Failed(IO_FAILURE, "the configuration on standard input can't be read", error.strerror) from None
    if len(stdin) > REQUEST_BYTES:
        raise Failed(IO_FAILURE, "the configuration on standard input can't be read", os.strerror(errno.EFBIG))
    return stdin


def make_request(stdin: bytes, own: list[bytes]) -> bytes:
    """The bytes of a request, with what this program says of itself."""
    variables = [b"%s=%s" % one for one in os.environb.items() if one[0].startswith(b"CNI_")]
    body = b"".join(one + b"\0" for one in (*variables, *own)) + b"\0" + stdin
    if len(body) > REQUEST_BYTES:
        raise Failed(IO_FAILURE, "environment and configuration are too long", "1 MiB is the most")
    return len(body).to_bytes(4, "big") + body


def has_reader(seconds: float = 0.0) -> bool:
    """Does anybody read standard output? Waits for so long until nobody does."""
    out = select.poll()
    out.register(STDOUT, 0)
    return not out.poll(seconds * 1000)


def exchange(path: str, request: bytes, fds: list[int]) -> bytes:
    """The answer to a request. OSError when there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(path)
        sent = socket.send_fds(connection, [request], fds)
        if sent < len(request):  # an agent that has answered already takes not even nothing
            connection.sendall(request[sent:])
        answer = bytearray()
        while chunk := connection.recv(65536):
            answer += chunk
            if len(answer) > ANSWER_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if not answer:
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return bytes(answer)


def patience(command: str) -> float:
    """So many seconds an agent that is away is waited for. Failed when PODPLANE_CNI_WAIT says no number of them."""
    if command == "VERSION":
        return 0.0
    if not (said := os.environ.get("PODPLANE_CNI_WAIT")):
        return STATUS_WAIT_SECONDS if command == "STATUS" else WAIT_SECONDS
    with contextlib.suppress(ValueError):
        if set(said) <= set("0123456789.") and (seconds := float(said)) <= MOST_WAIT_SECONDS:
            return seconds
    raise Failed(INVALID_ENVIRONMENT, "PODPLANE_CNI_WAIT is no number of seconds from 0 to 3600", said)


def ask(command: str, stdin: bytes, fds: list[int], own: list[bytes]) -> bytes:
    """The agent's answer. Unheard when nobody would read that of an ADD any more."""
    path = os.environ.get("PODPLANE_CNI_SOCKET") or SOCKET
    until, pause = time.monotonic() + patience(command), LOOK_SECONDS
    request, is_add, was_asked = make_request(stdin, own), command == "ADD", False
    while True:
        try:
            return exchange(path, request, fds)
        except OSError as error:
            number, reason = error.errno, f"{path}: {error.strerror or error}"
        if command == "VERSION":
            return b"\0" + versions(stdin)
        if number not in (*AWAY, *LOST):
            raise Failed(IO_FAILURE, "the podplane agent of this node can't be asked", reason)
        if command == "DEL" and number in NOBODY and not may_be_attached(path):
            return b"\0"
        if time.monotonic() + pause > until:
            code = NOT_AVAILABLE if command == "STATUS" else TRY_AGAIN
            raise Failed(code, "the podplane agent of this node does not answer", reason)
        if number in LOST:
            request, was_asked = make_request(stdin, [*own, b"PODPLANE_AGAIN=1"]), True
        if is_add and not has_reader(pause):
            raise Unheard(was_asked)
        if not is_add:
            time.sleep(pause)
        pause = min(pause * 2, LONGEST_LOOK_SECONDS)


def may_be_attached(path: str) -> bool:
    """Is there anything that an agent, which listens here and is away, may have attached for the container? By its journal (journal.c)."""
    container, attached = os.environ.get("CNI_CONTAINERID", ""), set()
    if not container:
        return True
    try:
        with open(os.path.join(os.path.dirname(path), JOURNAL), "rb") as journal:
            for line in journal:
                record = json.loads(line)
                if made := record.get("attach"):
                    attached.add((made["container_id"], made["ifname"]))
                elif gone := record.get("detach"):
                    attached.discard(tuple(gone))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True
    return any(one == container for one, _ in attached)


def versions(stdin: bytes) -> bytes:
    """The answer to VERSION."""
    return json.dumps({"cniVersion": version_said(stdin), "supportedVersions": VERSIONS}).encode()


def enter(fd: int) -> None:
    """Enter a network namespace. OSError when that can't be."""
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(fd, CLONE_NEWNET)
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def open_namespace(path: str) -> tuple[list[int], list[bytes]]:
    """The container's network namespace, and what the agent works with in it: descriptors, and what is said of them."""
    fds: list[int] = []
    try:
        fds.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return [], [b"PODPLANE_NETNS_ERROR=%d" % (error.errno or 0)]
    try:
        enter(fds[0])
    except OSError as error:
        return fds, [b"PODPLANE_FDS=netns", b"PODPLANE_ENTER_ERROR=%d" % (error.errno or 0)]
    names = [b"netns"]
    for name, protocol in ((b"route", NETLINK_ROUTE), (b"diag", NETLINK_SOCK_DIAG)):
        with contextlib.suppress(OSError):
            fds.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).detach())
            names.append(name)
    with contextlib.suppress(OSError):
        fds.append(os.open("/proc/sys/net/ipv6", os.O_RDONLY | os.O_DIRECTORY))
        names.append(b"ipv6")
    return fds, [b"PODPLANE_FDS=" + b",".join(names)]


def flags_of_lo(netns: str, up: int, down: int) -> int:
    """The flags of lo in a network namespace, before they are changed. OSError when that can't be."""
    import fcntl
    import struct

    with open(os.open(netns, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        enter(file.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        found = int(struct.unpack_from("16xH", fcntl.ioctl(door, SIOCGIFFLAGS, struct.pack("16s24x", b"lo")))[0])
        if (wanted := (found | up) & ~down) != found:
            fcntl.ioctl(door, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", wanted))
    return found


def loopback(command: str, stdin: bytes) -> bytes:
    """The plugin `loopback`: its standard output."""
    version, netns = version_said(stdin), os.environ.get("CNI_NETNS", "")
    if command == "VERSION":
        return versions(stdin)
    if version not in VERSIONS:
        raise Failed(INCOMPATIBLE_VERSION, f"cniVersion is none of {', '.join(VERSIONS)}", version)
    if command in ("GC", "STATUS"):
        return b""
    if not netns and command != "DEL":
        raise Failed(INVALID_ENVIRONMENT, "CNI_NETNS is missing", "")
    try:
        found = flags_of_lo(netns, IFF_UP if command == "ADD" else 0, IFF_UP if command == "DEL" else 0) if netns else 0
    except OSError as error:
        if command != "DEL":
            raise Failed(INVALID_ENVIRONMENT, f"lo of CNI_NETNS {netns} can't be set", error.strerror) from None
    if command == "CHECK" and not found & IFF_UP:
        raise Failed(FAULTY, "lo is down", "")
    return result_of_lo(version, netns) if command == "ADD" else b""


def result_of_lo(version: str, netns: str) -> bytes:
    """What an ADD of loopback has made."""
    ips: list[dict[str, object]] = [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]
    if version.startswith("0."):
        ips = [one | {"version": number} for one, number in zip(ips, "46", strict=True)]
    interfaces = [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns}]
    return json.dumps({"cniVersion": version, "interfaces": interfaces, "ips": ips}).encode()


def run(command: str, stdin: bytes) -> tuple[int, bytes]:
    """Exit status and standard output."""
    if command not in VERBS:
        raise Failed(INVALID_ENVIRONMENT, f"CNI_COMMAND is none of {', '.join(VERBS)}", command)
    if os.path.basename(sys.argv[0]) == "loopback":
        return 0, loopback(command, stdin)
    netns = os.environ.get("CNI_NETNS", "")
    fds, own = open_namespace(netns) if netns and command in ("ADD", "CHECK") else ([], [])
    answer = ask(command, stdin, fds, own)
    return answer[0], answer[1:]


def take_back(stdin: bytes) -> None:
    """Have detached what an ADD made: the engine that asked for it has ended, and will not ask for that. The namespace goes with the
    request: in another one it would be what a later engine has attached."""
    os.environ["CNI_COMMAND"] = "DEL"
    with contextlib.suppress(Failed):
        ask("DEL", stdin, *open_namespace(os.environ.get("CNI_NETNS", "")))


def write(stdout: bytes) -> None:
    """Write to standard output. OSError when nobody reads it."""
    while stdout:
        stdout = stdout[os.write(STDOUT, stdout) :]


def main() -> int:
    """The exit status."""
    command, stdin = os.environ.get("CNI_COMMAND"), b""
    if command is None:
        print("podplane-cni is a CNI plugin, which container engines run; it speaks 0.3.0 to 1.1.0.", file=sys.stderr)
        return 1
    try:
        stdin = read_stdin()
        status, stdout = run(command, stdin)
    except Failed as error:
        code, message, details = error.args
        told = {"cniVersion": version_said(stdin), "code": code, "msg": message, "details": details}
        status, stdout = 1, json.dumps(told).encode()
    except Unheard as unheard:
        if unheard.args[0]:
            take_back(stdin)
        return 1
    try:
        if command != "ADD" or has_reader():
            write(stdout)
            return status
    except OSError:
        pass
    if command == "ADD" and status == 0:  # what was refused may be attached since an ADD before
        take_back(stdin)
    return 1


if __name__ == "__main__":
    sys.exit(main())
