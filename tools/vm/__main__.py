"""Run tests on Debian's kernel, in a virtual machine. By hand (`make test-vm`); it takes a minute to boot and collect, and each test some
twenty times as long as here, because the processor is emulated.

    .venv/bin/python -m tools.vm [--seconds 1800] [--memory 2048] [-- COMMAND …]

Without a command it runs TESTS. The virtual machine sees the files of this one, read-only, and has no network: what it writes is gone with
it. The kernel is fetched as a package once, and kept in the cache of the user; qemu, virtiofsd and busybox must be there. Root runs it:
virtiofsd shows files of all users. Ends with the exit code of the command, 2 when it did not end in time.
"""

from __future__ import annotations

import argparse
import codecs
import compileall
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from podplane.kernel import syscalls
from tools.vm import initramfs
from tools.vm.kernel import Kernel, Missing, kernel, program, virtiofsd

SECONDS, MEMORY, PROCESSORS = 1800.0, 2048, 2
TESTS = (
    "tests/kernel/test_gre.py",
    "tests/kernel/test_sctp.py",
    "tests/e2e/test_gre.py",
    "tests/kernel/test_cgroups.py",
    "tests/kernel/test_cgroups_of_containers.py",
    "tests/attack/test_user_limits.py",
)
"""Those for which this kernel has something that others may lack."""
COMPILED = ("podplane", "tests", "bench")
"""What is compiled before: the virtual machine can't keep it, and every start of Python would take a minute for that there."""
PYTEST = (".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-v", "-rs", "--timeout=0")
SOCKET_SECONDS = 10.0
NOT_IN_TIME = 2


def main(words: list[str]) -> int:
    """Run it: the exit code of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.vm", description="Run tests on Debian's kernel, in a virtual machine."
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all of it (default {SECONDS:g})")
    parser.add_argument("--memory", type=int, default=MEMORY, help=f"MiB of the virtual machine (default {MEMORY})")
    parser.add_argument("command", nargs="*", help="what to run instead of the tests that are meant for it")
    options = parser.parse_args(words)
    if os.geteuid() != 0:
        print("virtual machines of tests are root's: virtiofsd shows files of all users", file=sys.stderr)
        return NOT_IN_TIME
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(NOT_IN_TIME))  # so that the virtual machine ends, too
    try:
        return run(options.command or [*PYTEST, *TESTS], options.seconds, options.memory)
    except Missing as error:
        print(error, file=sys.stderr)
        return NOT_IN_TIME


def run(command: list[str], seconds: float, memory: int) -> int:
    """Boot, run a command in this folder, and say what it said. Missing when something is not there."""
    began, found, mark = time.monotonic(), kernel(), f"exit-{secrets.token_hex(8)}:"
    for tree in COMPILED:
        compileall.compile_dir(tree, quiet=2)
    with tempfile.TemporaryDirectory(prefix="podplane-vm-") as folder:
        archive = Path(folder, "initramfs")
        archive.write_bytes(_archive(found, command, mark))
        with files(folder) as socket:
            code = _watch(qemu(found, archive, socket, memory), mark, began + seconds)
    if code is None:
        print(f"it did not end within {seconds:g} s, or the virtual machine did not start", file=sys.stderr)
    return NOT_IN_TIME if code is None else code


def _archive(found: Kernel, command: list[str], mark: str) -> bytes:
    needed = (os.getcwd(), sys.prefix, sys.base_prefix, str(found.modules))
    scripts = initramfs.scripts(command, folder=os.getcwd(), module_folder=str(found.modules), needed=needed, mark=mark)
    busybox = Path(program("busybox")).read_bytes()
    return initramfs.archive(initramfs.entries(busybox, initramfs.modules(found.modules), scripts))


@contextlib.contextmanager
def files(folder: str) -> Iterator[str]:
    """Serve the files of this machine, read-only: the path of a socket. Missing when that can't be."""
    socket, root, words = f"{folder}/files", f"{folder}/root", [virtiofsd()]
    os.mkdir(root)
    words += [f"--socket-path={socket}", "-o", f"source={root},cache=always,sandbox=chroot"]
    with (
        open(f"{folder}/log", "w+") as log,
        subprocess.Popen(words, stderr=log, stdout=log, stdin=subprocess.DEVNULL, preexec_fn=lambda: _show(root)) as server,
    ):
        try:
            until = time.monotonic() + SOCKET_SECONDS
            while not os.path.exists(socket):
                if server.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise Missing(f"virtiofsd does not serve: {log.read().strip()[-300:]}")
                time.sleep(0.02)
            yield socket
        finally:
            server.kill()


def _show(root: str) -> None:
    """All files of this machine there, read-only, for the caller alone."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("/", root, None, syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.set_attributes(root, syscalls.MOUNT_ATTR_RDONLY)


def qemu(found: Kernel, archive: Path, socket: str, memory: int) -> list[str]:
    """The command: no devices but the files and a serial console, no network, an emulated processor."""
    return [
        program("qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(PROCESSORS), "-m", str(memory)),
        *("-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on", "-numa", "node,memdev=memory"),
        *("-chardev", f"socket,id=files,path={socket}", "-device", "vhost-user-fs-pci,chardev=files,tag=files"),
        *("-kernel", str(found.image), "-initrd", str(archive), "-append", "console=ttyS0 quiet panic=-1"),
    ]


def _watch(words: list[str], mark: str, until: float) -> int | None:
    """Show what the virtual machine says, until it says the exit code; None when it says none in time."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        console = machine.stdout.fileno()
        end = threading.Timer(max(0.0, until - time.monotonic()), machine.kill)
        end.start()
        try:
            return show(iter(lambda: os.read(console, 65536), b""), mark)
        finally:
            end.cancel()
            machine.kill()


def show(said: Iterable[bytes], mark: str) -> int | None:
    """Print what a console says as it comes, until there is a line with the exit code; None when none comes."""
    decoder, line, shown = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
    for data in said:
        line += decoder.decode(data).replace("\r", "")
        while "\n" in line:
            whole, _, line = line.partition("\n")
            if whole.startswith(mark):
                return int(whole.removeprefix(mark))
            print(whole[shown:], flush=True)
            shown = 0
        if not mark.startswith(line[: len(mark)]):
            print(line[shown:], end="", flush=True)
            shown = len(line)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
