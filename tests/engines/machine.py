"""A machine beside those of a lab: namespaces of its own, with a cable to the lab's switch. What runs on it ends with it.

    lab: switch0 ─ node1, …          the machine: eth0, programs with its own network, processes, /run, /etc, /var and /opt
             └──────────────────────────── eth0

Its /etc, /var and /opt begin as those of the host, and what is changed there is gone with it; so are its control groups. Root is needed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from podplane.ipam.plan import Plan
from podplane.lab.folder import Folder
from podplane.lab.underlay import switch_name

NUMBER = 91
"""Among the addresses of nodes: far behind those of the lab's own."""
UPLINK = "eth0"
NUMBERS = itertools.count()
"""Machines of this process, in the order of their boots."""
GROUPS = Path("/sys/fs/cgroup")
END_SECONDS = 10.0
WHOLE_MACHINE = ["0", "0", "4294967295"]
"""The map of ids (user_namespaces(7)) of who is in no user namespace of its own: containers' devices can't be mounted there."""
TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
MOUNTED = "/mnt"
"""Where a disk is mounted, for the machine and the process that holds it."""
OWN = ("etc", "var", "opt")
"""Folders that are changed on it, and not on the host."""
BOOT = """
hostname {name}
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/disk
{disk}
for one in {own}; do
    mkdir -p /run/disk/$one /run/disk/.$one /$one
    mount -t overlay -o lowerdir=/$one,upperdir=/run/disk/$one,workdir=/run/disk/.$one overlay /$one
done
for one in containerd containers; do mkdir -p /run/disk/.$one /var/lib/$one; mount --bind /run/disk/.$one /var/lib/$one; done
mkdir -p /run/lock
{more}
mount --make-rshared /
echo booted
exec {init} init
"""
"""Images are on a tmpfs: an overlay can't lie upon another one. Mounts are shared, as systemd has them."""
JOIN = 'for one in "$@"; do shift; [ "$one" != -- ] || break; echo $$ > "$one"; done; exec "$@"'
"""A program joins control groups, whose files come before its words."""


def why_not() -> str:
    """Why there can be no such machine here; "" when there can."""
    if os.geteuid() or Path("/proc/self/uid_map").read_text().split() != WHOLE_MACHINE:
        return "engines are run by root of the machine, which this is not"
    if missing := [f"{tool} ({package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)}"
    test = "mount -t tmpfs tmpfs /tmp"
    done = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c", test], capture_output=True, text=True)
    if done.returncode:
        return f"namespaces can't be made here: {done.stderr.strip()}"
    if not all(os.access(one, os.W_OK) and not os.statvfs(one).f_flag & os.ST_RDONLY for one in hierarchies()):
        return f"control groups can't be made in {GROUPS}"
    return ""


def needing(programs: Mapping[str, str]) -> pytest.MarkDecorator:
    """Leaves tests out, and says why, where one of these programs is not there; with each, Debian's package of it."""
    missing = [f"{name} (package {package})" for name, package in programs.items() if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def hierarchies() -> list[Path]:
    """Where control groups are made: one place with version 2, one for each controller with version 1."""
    if (GROUPS / "cgroup.controllers").exists():
        return [GROUPS]
    return [
        one for one in sorted(GROUPS.iterdir()) if one.is_dir() and not one.is_symlink() and (one / "cgroup.procs").exists()
    ]


def _is_of_processors(hierarchy: Path) -> bool:
    """Is that where control groups share processors?"""
    return hierarchy == GROUPS or (hierarchy / "cpu.shares").exists()


class Program:
    """A program on the machine that goes on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id on the host."""
        return child_of(self._process)

    def stop(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; nsenter(1) stops with its child, and has that go on when it does itself."""
        pid = self.pid
        self._process.send_signal(signal.SIGCONT)
        os.kill(pid, signal.SIGCONT)

    def end(self, number: signal.Signals) -> None:
        """Have it end, and wait for that."""
        os.kill(self.pid, number)
        self._process.wait(END_SECONDS)


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The only child of a process, once there is one."""
    for _ in range(500):
        if children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            return int(children[0])
        assert process.poll() is None, f"it ended with exit status {process.returncode}: {process.args!r}"
        time.sleep(0.01)
    raise AssertionError(f"no child after 5 s: {process.args!r}")


class Disk:
    """What stays of a machine while its power is off: a file system in memory, which a process of its own holds until `close`."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        script = f"mount -t tmpfs -o mode=755 tmpfs {MOUNTED} && echo && exec cat"
        self._process = subprocess.Popen(["unshare", "--mount", "sh", "-euc", script], stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None and self._process.stdout.readline() == b"\n"

    @property
    def entering(self) -> list[str]:
        """Words before those of a program that is to find it where it is mounted."""
        return ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", "--"]

    def close(self) -> None:
        """It is gone with its last machine."""
        self._process.communicate()


class Machine:
    """One machine, from its boot to `close`. Logs of its programs are in `logs`."""

    def __init__(self, name: str, init: Path, logs: Path, more: str = "", disk: Disk | None = None) -> None:
        """`more` are further commands of a shell at its boot; without a `disk`, what is written there goes when its power is off."""
        self.name, self.logs = name, logs
        self.group = f"/podplane-test-{os.getpid()}-{next(NUMBERS)}-{name}"
        """The control group of all that runs there: of containers, and, as systemd has it, of the machine's own programs beside them.
        No other machine's: there may be several of one name."""
        words = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        mounted = f"mount --bind {MOUNTED} /run/disk" if disk is not None else ""
        script = BOOT.format(name=name, own=" ".join(OWN), init=init, more=more, disk=mounted)
        pipe = subprocess.PIPE
        entering = disk.entering if disk is not None else []
        self._process = subprocess.Popen([*entering, *words, "--", "sh", "-euc", script], stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"booted\n"
        self._pid = child_of(self._process)
        for hierarchy in hierarchies():
            (hierarchy / self.group[1:]).mkdir(exist_ok=True)
        self._joined = [self._system(one) for one in hierarchies() if _is_of_processors(one)]

    def _system(self, hierarchy: Path) -> str:
        """The file by which programs of the machine share its processors as `system.slice` does, and not as those who run the tests."""
        group = hierarchy / self.group[1:] / "system"
        group.mkdir(exist_ok=True)
        return str(group / "cgroup.procs")

    @property
    def pid(self) -> int:
        """The first process of the machine, as the host numbers it."""
        return self._pid

    def path(self, name: str) -> str:
        """A file of the machine, as the host names it."""
        return f"/proc/{self._pid}/root{name}"

    def _entered(self, words: Sequence[str]) -> list[str]:
        return ["nsenter", "--target", str(self._pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--", *words]

    def __call__(self, *words: str, code: int | None = 0, stdin: str | None = None, seconds: float = 60) -> str:
        """What a program prints there, within so long; its exit status must be `code` (None: whatever it is)."""
        done = subprocess.run(self._entered(words), input=stdin, capture_output=True, text=True, timeout=seconds)
        if code is not None:
            assert done.returncode == code, f"{words}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> Program:
        """A program that goes on; what it says is in a log with its name."""
        joined = ["sh", "-euc", JOIN, "sh", *self._joined, "--", *self._entered(words)]
        with (self.logs / f"{Path(words[0]).name}.log").open("ab") as log:
            return Program(subprocess.Popen(joined, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def piped(self, *words: str) -> subprocess.Popen[str]:
        """A program that goes on until its input is closed; its output comes as text."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self._entered(words), stdin=pipe, stdout=pipe, text=True)

    def runs(self, name: str) -> bool:
        """Does a program of this name run there?"""
        for comm in Path(self.path("/proc")).glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if comm.read_text().strip() == name:
                    return True
        return False

    def cable(self, lab: Folder, plan: Plan) -> tuple[str, ...]:
        """Join the lab's switch, with addresses and routes as a machine there has them; the addresses."""
        switch = _switch_of(lab)
        port = ["link", "add", self.name, "type", "veth", "peer", "name", UPLINK, "netns", str(self._pid)]
        for words in (port, ["link", "set", self.name, "master", switch_name(0), "up"]):
            subprocess.run(["nsenter", f"--net={switch}", "ip", *words], check=True)
        lines = [f"ip link set {one} up" for one in ("lo", UPLINK)]
        for ip, gateway in zip(plan.node_ips(NUMBER), plan.underlay_gateways(), strict=True):
            network = next(one for one in plan.node if ip in one)
            lines.append(f"ip addr add {ip}/{network.prefixlen} dev {UPLINK} {'nodad' if ip.version == 6 else ''}")
            lines.append(f"ip route add default via {gateway}")
        self("sh", "-euc", "\n".join(lines))
        return tuple(map(str, plan.node_ips(NUMBER)))

    def close(self) -> None:
        """Power off: its processes are killed, and all that is its own goes."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(END_SECONDS)
        for hierarchy in hierarchies():
            _remove_groups(hierarchy / self.group[1:])


def _switch_of(lab: Folder) -> str:
    """The network namespace of the lab's switch, which its first process holds open."""
    for path in Path(f"/proc/{lab.holder()}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith("net:["):
                looked = subprocess.run(["nsenter", f"--net={path}", "ip", "link", "show", switch_name(0)], capture_output=True)
                if looked.returncode == 0:
                    return str(path)
    raise AssertionError("the lab has no switch")


def _remove_groups(top: Path) -> None:
    """Remove control groups, whose last processes are about to end."""
    for folder, _, _ in sorted(os.walk(top), reverse=True):
        end = time.monotonic() + END_SECONDS
        while os.path.isdir(folder):
            try:
                os.rmdir(folder)
            except OSError:
                assert time.monotonic() < end, f"{folder} is still in use"
                time.sleep(0.01)


@contextlib.contextmanager
def booted(name: str, init: Path, logs: Path) -> Iterator[Machine]:
    """A machine, as long as this is entered."""
    machine = Machine(name, init, logs)
    try:
        yield machine
    finally:
        machine.close()
