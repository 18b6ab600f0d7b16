"""Containers of the real zygote: how they end, what they see, what they inherit, and what ends with what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel import process_title, syscalls, zygote, zygote_answers, zygote_processes
from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.kernel.process import ProcessError
from podplane.kernel.zygote_messages import MESSAGE_BYTES
from podplane.kernel.zygote_process import ZygoteProcess
from podplane.kernel.zygote_processes import ZygoteProcesses

pytestmark = pytest.mark.kernel
PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
SECONDS = 30.0 * float(os.environ.get("PODPLANE_TEST_PATIENCE", "1"))
"""More where a processor is emulated (`tools.vm`)."""
USR_BIN = os.path.realpath("/usr/bin")


def mounts() -> str:
    """Those of this process."""
    return Path("/proc/self/mounts").read_text()


class Machine:
    """A zygote, a network namespace for its containers, and what they said."""

    def __init__(self) -> None:
        self.losses = 0
        self.sandbox = 0
        self.netns = NetworkNamespace.create(Workers(1))
        began = zygote.start("podplane.runtime.zygote")
        self.processes = ZygoteProcesses(began.connection, self._lost, began.pid)
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def _lost(self) -> None:
        self.losses += 1

    def start(self, *argv: str, env: dict[str, str] | None = None, **options: Any) -> ZygoteProcess:
        """A process that says nothing."""
        stdio = (self.null, self.null, self.null)
        return self.processes.spawn(argv, stdio, **self._defaults(options), env=PATH if env is None else env)

    def _defaults(self, options: dict[str, Any]) -> dict[str, Any]:
        """A container with files of its own is in a sandbox, as all of a lab's pods are."""
        if options.get("root") is not None and self.sandbox == 0:
            self.sandbox = self.processes.make_sandbox().id
        return {"netns": self.netns.fd, "sandbox": self.sandbox if "root" in options else 0, **options}

    def sh(self, script: str, **options: Any) -> ZygoteProcess:
        """A script that says nothing."""
        return self.start("sh", "-c", script, **options)

    def talker(self, script: str, **options: Any) -> tuple[ZygoteProcess, asyncio.StreamReader]:
        """A script, and what it says."""
        read, write = os.pipe2(os.O_CLOEXEC)
        stdio = (self.null, write, write)
        options = {"env": PATH, **self._defaults(options)}
        process = self.processes.spawn(["sh", "-c", script], stdio, **options)
        os.close(write)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()

        def more() -> None:
            data = os.read(read, 65536)
            if data:
                reader.feed_data(data)
            else:
                loop.remove_reader(read)
                os.close(read)
                reader.feed_eof()

        loop.add_reader(read, more)
        return process, reader

    async def says(self, script: str, **options: Any) -> str:
        """All that a script says."""
        process, reader = self.talker(script, **options)
        text = (await reader.read()).decode()
        await process.exited
        return text.strip()

    async def running(self, script: str = "", **options: Any) -> ZygoteProcess:
        """A container that has run this script and goes on."""
        process, reader = self.talker(f"{script}\necho ready; exec sleep 1000 >/dev/null 2>&1", **options)
        line = b""
        while line != b"ready\n":
            line = await reader.readline()
            assert line, process.error
        await process.started()  # what it writes may be read before what is said of it
        return process


def contained(test: Callable[[Machine], Awaitable[None]]) -> Callable[[], None]:
    """A test that runs as process 1 of a PID namespace, as a lab does: nothing of it outlives it."""

    async def play() -> None:
        async with asyncio.timeout(SECONDS):
            await test(Machine())

    def run() -> None:
        read, write = os.pipe()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            text = ""
            try:
                syscalls.mount("proc", "/proc", "proc", 0)
                asyncio.run(play())
            except BaseException:
                text = traceback.format_exc()
            os.write(write, text.encode()[:60000])
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as source:
            text = source.read()
        os.waitpid(pid, 0)
        assert not text, text

    run.__doc__ = test.__doc__
    return run


def namespaces(pid: int | str = "self") -> dict[str, str]:
    """The namespaces of a process."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "mnt", "uts", "net", "user")}


def children() -> list[int]:
    """Processes whose parent this is."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if place.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(int(place.parent.name))
    return found


async def ends(process: ZygoteProcess) -> int:
    """Its exit code, soon."""
    return await asyncio.wait_for(process.exited, SECONDS)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for is not ours to tell
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Does this process run?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# How they end.


@contained
async def test_exit_codes(machine: Machine) -> None:
    for code in (0, 1, 7, 126, 127, 255):
        process = machine.sh(f"exit {code}")
        await process.started()
        assert await ends(process) == code
        assert process.error == ""


@contained
async def test_a_signal_ends_with_128_and_its_number(machine: Machine) -> None:
    container = await machine.running()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        joined = machine.sh(f"kill -{int(number)} $$", join=container.id)
        assert await ends(joined) == 128 + number
    container.signal(signal.SIGKILL)
    assert await ends(container) == 137


@contained
async def test_a_command_that_is_not_there(machine: Machine) -> None:
    for name in ("nonsense", "/no/such/file", "./nonsense"):
        process = machine.start(name)
        with pytest.raises(ProcessError, match=f"^{name}: no such command on this machine$"):
            await process.started()
        assert await ends(process) == 127


@contained
async def test_a_file_that_is_no_program(machine: Machine) -> None:
    process = machine.start("/proc/self/status")
    with pytest.raises(ProcessError):
        await process.started()
    assert await ends(process) == 126


@contained
async def test_arguments_beyond_a_message_are_refused(machine: Machine) -> None:
    process = machine.start("echo", "x" * MESSAGE_BYTES)
    with pytest.raises(ProcessError, match=r"^echo: arguments and environment are too long$"):
        await process.started()
    assert await ends(process) == 126
    assert await machine.says("echo fine") == "fine"


@contained
async def test_many_arguments_that_fit_arrive(machine: Machine) -> None:
    words = [str(i) for i in range(20_000)]
    assert await machine.says("echo 20000", env=PATH) == "20000"
    process = machine.start("sh", "-c", "exit $(($# == 20000 ? 5 : 6))", "sh", *words)
    assert await ends(process) == 5


@contained
async def test_an_argument_that_the_kernel_refuses_is_an_error(machine: Machine) -> None:
    process = machine.start("echo", "x" * 140_000)  # MAX_ARG_STRLEN is 128 KiB
    assert await ends(process) == 126
    assert process.error == "echo: Argument list too long"


@contained
async def test_what_could_not_be_executed_never_started(machine: Machine) -> None:
    process = machine.start("echo", "x" * 140_000)
    with pytest.raises(ProcessError, match="Argument list too long"):
        await process.started()


@contained
async def test_errors_are_one_line(machine: Machine) -> None:
    for argv, env in ((("echo", "a\0b"), PATH), (("echo",), {**PATH, "A\0": "b"})):
        process = machine.start(*argv, env=env)
        assert await ends(process) == 126
        assert process.error.startswith("echo: ")
        assert "\n" not in process.error.strip()


@contained
async def test_many_at_once(machine: Machine) -> None:
    processes = [machine.sh(f"exit {i}") for i in range(50)]
    assert [await ends(p) for p in processes] == list(range(50))
    assert len({p.id for p in processes}) == 50


# What they see.


@contained
async def test_the_environment_is_what_was_given_and_nothing_else(machine: Machine) -> None:
    env = {**PATH, "A": "1 2", "EMPTY": "", "UNICODE": "ä", "LINES": "a\nb"}
    text = await machine.says("exec env -0", env=env)
    assert dict(word.split("=", 1) for word in text.strip("\0").split("\0") if not word.startswith("PWD=")) == env


@contained
async def test_the_host_name_is_its_own(machine: Machine) -> None:
    before = os.uname().nodename
    container = await machine.running(hostname="web-0")
    assert await machine.says("uname -n", hostname="web-1") == "web-1"
    assert await machine.says("uname -n", join=container.id) == "web-0"
    assert await machine.says("uname -n") == before
    assert os.uname().nodename == before


@contained
async def test_the_working_directory(machine: Machine) -> None:
    assert await machine.says("pwd -P") == "/"
    assert await machine.says("pwd -P", directory="/usr/bin") == USR_BIN
    container = await machine.running()
    assert await machine.says("pwd -P", directory="/dev", join=container.id) == "/dev"


@contained
async def test_a_working_directory_that_is_not_there_is_named(machine: Machine) -> None:
    process = machine.sh("exit 0", directory="/no/such/place")
    with pytest.raises(ProcessError, match="/no/such/place"):
        await process.started()


@contained
async def test_proc_shows_its_own_processes_only(machine: Machine) -> None:
    assert await machine.says("echo $$; cd /proc; echo [0-9]*") == "1\n1"
    container = await machine.running("sleep 1000 >/dev/null 2>&1 &")
    seen = (await machine.says("echo $$; cd /proc; echo [0-9]*", join=container.id)).split()
    assert len(seen) == 4
    assert seen[0] in seen[1:]


@contained
async def test_the_network_is_that_of_the_pod(machine: Machine) -> None:
    inode = f"net:[{machine.netns.inode}]"
    assert await machine.says("readlink /proc/self/ns/net") == inode
    assert await machine.says("sed 1,2d /proc/net/dev | cut -d: -f1") == "lo"
    assert namespaces()["net"] != inode
    container = await machine.running()
    with NetworkNamespace.create(Workers(1)) as other:
        assert await machine.says("readlink /proc/self/ns/net", netns=other.fd) == f"net:[{other.inode}]"
        assert await machine.says("readlink /proc/self/ns/net", netns=other.fd, join=container.id) == inode


@contained
async def test_namespaces_are_new_for_a_container_and_shared_by_who_joins(machine: Machine) -> None:
    ours = namespaces()
    first, second = await machine.running(), await machine.running()
    joined = await machine.running(join=first.id)
    seen = [namespaces(p.pid) for p in (first, second, joined)]
    assert seen[0] == seen[2]
    for kind in ("pid", "mnt", "uts"):
        assert len({ours[kind], seen[0][kind], seen[1][kind]}) == 3
    assert {s["user"] for s in seen} == {ours["user"]}
    assert {s["net"] for s in seen} == {f"net:[{machine.netns.inode}]"}


@contained
async def test_who_joins_at_once_is_in_the_container_too(machine: Machine) -> None:
    for _ in range(10):
        container = machine.sh("sleep 1000")
        texts = await asyncio.gather(*(machine.says("readlink /proc/self/ns/net", join=container.id) for _ in range(3)))
        assert set(texts) == {f"net:[{machine.netns.inode}]"}
        container.signal(signal.SIGKILL)


@contained
async def test_an_ended_container_cannot_be_joined(machine: Machine) -> None:
    container = machine.sh("exit 0")
    await ends(container)
    joined = machine.sh("exit 0", join=container.id)
    with pytest.raises(ProcessError, match=r"^sh: can't be started: its container has ended$"):
        await joined.started()
    assert await ends(joined) == 126


@contained
async def test_mounts_of_a_container_are_its_own(machine: Machine) -> None:
    before = mounts()
    container = await machine.running("mount -t tmpfs mine /mnt")
    assert "mine /mnt" in await machine.says("cat /proc/mounts", join=container.id)
    assert "mine /mnt" not in await machine.says("cat /proc/mounts")
    assert mounts() == before


# What they inherit.


@contained
async def test_nothing_but_standard_streams_is_inherited(machine: Machine) -> None:
    inheritable = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    container = await machine.running()
    joined = await machine.running(join=container.id)
    for process in (container, joined):
        place = Path(f"/proc/{process.pid}")
        await until(lambda place=place: (place / "comm").read_text() == "sleep\n")  # type: ignore[misc]  # a shell has some
        await until(lambda place=place: sorted(os.listdir(place / "fd")) == ["0", "1", "2"])  # type: ignore[misc]  # so has ld.so


@contained
async def test_a_built_in_program_holds_its_own_sockets_only(machine: Machine) -> None:
    process = machine.start("podplane/echo")
    await process.started()

    def held() -> list[str]:
        links = [os.readlink(place) for place in Path(f"/proc/{process.pid}/fd").iterdir()]
        return sorted(link.split(":")[0] for link in links if link != os.devnull)

    await until(lambda: len(held()) <= 3)
    assert held() == ["anon_inode", "socket", "socket"]


@contained
async def test_a_built_in_program_is_seen_as_itself(machine: Machine) -> None:
    words, env = ("/agnhost", "netexec", "--http-port=8080", "a b"), {**PATH, "COLOUR": "blue"}
    process = machine.start(*words, env=env, program="podplane/client")
    await process.started()
    place = Path(f"/proc/{process.pid}")
    assert (place / "cmdline").read_bytes() == b"".join(word.encode() + b"\0" for word in words)
    assert set((place / "environ").read_bytes().strip(b"\0").split(b"\0")) == {f"{k}={v}".encode() for k, v in env.items()}
    assert (place / "comm").read_text() == "agnhost\n"


@contained
async def test_without_the_kernels_help_its_words_are_written_over_the_old_ones(machine: Machine) -> None:
    pid = os.fork()
    if not pid:
        process_title.write_over(b"/agnhost\0pause\0")
        signal.pause()
    place = Path(f"/proc/{pid}/cmdline")
    await until(lambda: place.read_bytes().strip(b"\0") == b"/agnhost\0pause")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # noqa: ASYNC222  # it has been killed


def test_it_imports_what_containers_need_and_nothing_else() -> None:
    code = "import sys; sys.path[:] = sys.argv[1:]; import podplane.runtime.zygote; print(*sys.modules)"
    words = [sys.executable, "-I", "-S", "-c", code, *sys.path]
    found = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert "podplane.runtime.echo" in found
    assert not found & {"threading", "logging", "random", "asyncio", "hashlib", "ssl"}
    assert not {name for name in found if name.startswith(("podplane.state", "podplane.kernel.rtnl", "podplane.dns"))}


@contained
async def test_standard_streams_are_those_that_were_given(machine: Machine) -> None:
    pipes = [os.pipe() for _ in range(3)]
    os.write(pipes[0][1], b"question\n")
    process = machine.processes.spawn(
        ["sh", "-c", "read a; echo $a; echo wrong >&2"],
        (pipes[0][0], pipes[1][1], pipes[2][1]),
        netns=machine.netns.fd,
        env=PATH,
    )
    assert await ends(process) == 0
    assert (os.read(pipes[1][0], 99), os.read(pipes[2][0], 99)) == (b"question\n", b"wrong\n")


@contained
async def test_our_own_descriptors_do_not_pile_up(machine: Machine) -> None:
    await ends(machine.sh("exit 0"))
    before = os.listdir("/proc/self/fd")
    await asyncio.gather(*(ends(machine.sh("exit 0")) for _ in range(30)))
    assert os.listdir("/proc/self/fd") == before


@contained
async def test_an_end_before_the_beginning(machine: Machine) -> None:
    processes = [machine.sh("sleep 1000") for _ in range(20)]
    for number, process in zip((signal.SIGTERM, signal.SIGKILL), processes[-2:], strict=True):
        process.signal(number)
        with pytest.raises(ProcessError):
            await process.started()
        assert await ends(process) == 128 + number
        assert process.pid == 0
    for process in processes[:-2]:
        process.signal(signal.SIGKILL)
    assert {await ends(p) for p in processes[:-2]} == {137}


@contained
async def test_any_signal_counts_before_the_beginning(machine: Machine) -> None:
    container = await machine.running()
    processes = [machine.start("sleep", "1000", join=container.id) for _ in range(20)]
    processes[-1].signal(signal.SIGINT)
    assert await ends(processes[-1]) == 128 + signal.SIGINT


@contained
async def test_what_a_container_started_ends_with_it(machine: Machine) -> None:
    process, reader = machine.talker(
        "sleep 1000 >/dev/null 2>&1 & (setsid sleep 1000 &) & sleep 0.05; echo ready; read x <&2; exit 3"
    )
    del reader
    process.signal(signal.SIGKILL)
    await ends(process)
    container = await machine.running("setsid sleep 1000 >/dev/null 2>&1 &")
    joined = await machine.running("setsid sleep 1000 >/dev/null 2>&1 &", join=container.id)
    inside = namespaces(container.pid)["pid"]

    def left() -> list[str]:
        found = []
        for place in Path("/proc").glob("[0-9]*/ns/pid"):
            with contextlib.suppress(OSError):
                found += [str(place)] if os.readlink(place) == inside else []
        return found

    assert len(left()) == 4
    container.signal(signal.SIGKILL)
    assert (await ends(container), await ends(joined)) == (137, 137)
    await until(lambda: left() == [])


@contained
async def test_the_death_of_the_zygote_is_told_once(machine: Machine) -> None:
    container = await machine.running()
    waiting = [machine.sh("sleep 1000") for _ in range(20)]
    (parent,) = children()
    os.kill(parent, signal.SIGKILL)
    assert {await ends(p) for p in (container, *waiting)} == {137}
    assert waiting[-1].error == "the zygote has ended"
    with pytest.raises(ProcessError, match="the zygote has ended"):
        await waiting[-1].started()
    await asyncio.sleep(0.05)
    assert machine.losses == 1


@contained
async def test_nothing_can_be_started_once_the_zygote_has_ended(machine: Machine) -> None:
    (parent,) = children()
    os.kill(parent, signal.SIGKILL)
    await until(lambda: machine.losses == 1)
    before = os.listdir("/proc/self/fd")
    process = machine.sh("exit 0")
    with pytest.raises(ProcessError):
        await asyncio.wait_for(process.started(), 1)
    assert os.listdir("/proc/self/fd") == before


@contained
async def test_closing_ends_the_zygote(machine: Machine) -> None:
    (parent,) = children()
    machine.processes.close()
    machine.processes.close()
    await until(lambda: not alive(parent))
    assert machine.losses == 0


@contained
async def test_a_zygote_that_cannot_start_is_lost(machine: Machine) -> None:
    os.dup2(machine.null, 2)  # what it says is not for this test's eyes
    losses: list[int] = []
    broken = ZygoteProcesses(zygote.start("podplane.no_such_module").connection, lambda: losses.append(1))
    process = broken.spawn(["true"], (machine.null,) * 3, netns=machine.netns.fd)
    assert await ends(process) == 137
    assert losses == [1]


@contained
async def test_a_zygote_that_was_stopped_goes_on(machine: Machine) -> None:
    """Meanwhile who waits for it is told for whom, and what was asked is done afterwards."""
    await machine.start("true").started()
    zygote_processes.LOOK_SECONDS, zygote_answers.ANSWER_SECONDS = 0.01, 0.1  # of the process of this test alone
    os.kill(machine.processes.pid, signal.SIGSTOP)
    late = machine.start("true")
    said = f"what starts containers \\(the zygote, process {machine.processes.pid}\\) has said nothing for 0.1 s"
    with pytest.raises(ProcessError, match=said):
        await late.started()
    with pytest.raises(OSError, match=said):
        await machine.processes.make_sandbox().netns()
    watch = asyncio.ensure_future(machine.processes.keep_going())
    assert await ends(late) == 0
    watch.cancel()


def open_files(pid: int) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid}/fd"), key=int)


@contained
async def test_descriptors_of_sandboxes_are_the_labs_alone(machine: Machine) -> None:
    assert await ends(machine.start("true")) == 0
    zygotes, own = open_files(machine.processes.pid), open_files(os.getpid())
    asked, given, late = (machine.processes.make_sandbox() for _ in range(3))
    late.release()
    netns = await given.netns()
    await machine.processes.make_sandbox().netns()
    assert await ends(machine.start("true")) == 0
    assert open_files(machine.processes.pid) == zygotes
    assert len(open_files(os.getpid())) == len(own) + 3 * 3
    for one in (asked, given):
        one.release()
        one.release()
    assert os.readlink(f"/proc/self/fd/{netns}").startswith("net:")
    os.close(netns)
    assert len(open_files(os.getpid())) == len(own) + 3


@contained
async def test_a_process_waits_for_its_sandbox_and_starts_in_none_that_is_gone(machine: Machine) -> None:
    sandbox = machine.processes.make_sandbox()
    early = machine.start("true", sandbox=sandbox.id)
    assert await ends(early) == 0
    await sandbox.netns()
    sandbox.release()
    for number in (sandbox.id, machine.processes.make_sandbox().id + 1):
        with pytest.raises(ProcessError, match="it can't be started: its sandbox is gone"):
            await machine.start("true", sandbox=number).started()


@contained
async def test_what_waits_for_a_built_in_program_to_start_begins_when_it_has(machine: Machine) -> None:
    zygote_processes.MAX_STARTING = 1  # of the process of this test alone
    every = [machine.start("podplane/echo", env={"PORT": str(number)}) for number in (8080, 8081, 8082, 8083)]
    async with asyncio.timeout(10):
        for one in every:
            await one.started()
    for one in every:
        one.signal(signal.SIGTERM)
        assert await ends(one) == 0
