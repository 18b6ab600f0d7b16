"""podplane-cni, in C and as a script: what it sends, and what it prints when the agent is away, ends, or says anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from podplane.cni import wire
from podplane.cni.result import VERSIONS
from podplane.machine.journal import Journal
from tests.unit.cni import programs
from tests.unit.cni.fakes import configuration
from tests.unit.cni.programs import PROGRAMS, Ended, words_of
from tests.unit.machine.test_journal import IPS, attachment

STDIN = configuration("1.0.0")


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    yield
    programs.clean()


@pytest.fixture(params=PROGRAMS)
def words(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return words_of(request.param, tmp_path)


class Scripted:
    """An agent that gives these answers, one to a connection; b"" is none. It keeps requests and files that came with them."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[wire.Request] = []
        self.files: list[os.stat_result] = []

    @contextlib.asynccontextmanager
    async def at(self, path: Path) -> AsyncIterator[None]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            serving = asyncio.create_task(asyncio.to_thread(self._serve, listener))
            yield
            await serving

    def _serve(self, listener: socket.socket) -> None:
        for answer in self.answers:
            connection, _ = listener.accept()
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, wire.REQUEST_BYTES + 4, 4)
                while len(data) < 4 + wire.length_of(data):
                    data += connection.recv(1 << 20)
                self.requests.append(wire.parse(data[4:]))
                self.files += [os.fstat(fd) for fd in fds]
                for fd in fds:
                    os.close(fd)
                connection.sendall(answer)


async def run(words: list[str], path: Path, verb: str, stdin: bytes = STDIN, **env: str) -> Ended:
    socket_of = {"PODPLANE_CNI_SOCKET": str(path)}
    return await programs.run(words, stdin, CNI_COMMAND=verb, CNI_CONTAINERID="c1", CNI_IFNAME="eth0", **socket_of, **env)


def attached(folder: Path, *containers: str) -> Journal:
    """The journal of an agent that is away, with these containers."""
    journal = Journal(folder / "attachments.journal")
    for one in containers:
        journal.attach(attachment(one), IPS, 0)
    return journal


async def test_a_call_is_handed_over_with_the_namespace_and_the_answer_is_copied(words: list[str], tmp_path: Path) -> None:
    agent, path = Scripted(wire.answer(0, b'{"a":1}'), wire.answer(3, b"")), tmp_path / "cni.sock"
    async with agent.at(path):
        added = await run(words, path, "ADD", CNI_NETNS="/proc/self/ns/uts", CNI_ARGS="A=1;B=ä", OTHER="x")
        deleted = await run(words, path, "DEL", CNI_NETNS="/proc/self/ns/uts")
    assert (added, deleted) == (Ended(0, b'{"a":1}', b""), Ended(3, b"", b""))
    first, second = agent.requests
    own = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/self/ns/uts"}
    assert first == (own | {"CNI_ARGS": "A=1;B=ä", "PODPLANE_FDS": "netns", "PODPLANE_ENTER_ERROR": "22"}, STDIN)
    assert second == (own | {"CNI_COMMAND": "DEL"}, STDIN)
    assert [one.st_ino for one in agent.files] == [os.stat("/proc/self/ns/uts").st_ino]


async def test_a_namespace_that_vanished_is_the_agents_to_judge(words: list[str], tmp_path: Path) -> None:
    agent, path = Scripted(wire.answer(1)), tmp_path / "cni.sock"
    async with agent.at(path):
        await run(words, path, "ADD", CNI_NETNS=str(tmp_path / "gone"))
    assert agent.requests[0].env[wire.NETNS_ERROR] == "2"
    assert wire.FDS not in agent.requests[0].env


async def test_a_large_configuration_and_answer_pass_and_larger_ones_do_not(words: list[str], tmp_path: Path) -> None:
    stdin, answer = b"x" * 1_000_000, b"y" * 1_000_000
    agent, path = Scripted(wire.answer(0, answer)), tmp_path / "cni.sock"
    async with agent.at(path):
        assert await run(words, path, "ADD", stdin) == Ended(0, answer, b"")
    assert agent.requests[0].stdin == stdin
    refused = await run(words, path, "ADD", b"x" * (2 << 20))
    assert (refused.status, refused.output["code"]) == (1, 5)


async def test_an_agent_that_is_away_is_waited_for_but_not_for_ever(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    attached(tmp_path, "c1")
    for verb, code in (("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)):
        ended = await run(words, path, verb, PODPLANE_CNI_WAIT="0")
        assert (ended.status, ended.output["code"], ended.output["cniVersion"]) == (1, code, "1.0.0")
        assert ended.output["details"] == f"{path}: No such file or directory"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert "refused" in (await run(words, path, "ADD", PODPLANE_CNI_WAIT="0")).output["details"]
    path.unlink()
    adding = asyncio.create_task(run(words, path, "ADD"))
    await asyncio.sleep(0.1)
    async with Scripted(wire.answer(0, b"{}")).at(path):
        assert await adding == Ended(0, b"{}", b"")


async def test_of_an_agent_that_is_away_what_is_not_attached_is_deleted_at_once(words: list[str], tmp_path: Path) -> None:
    """Kubernetes' node has booted since then, its agent was removed, or a DEL comes a second time (kubeadm reset)."""
    path, wait = tmp_path / "cni.sock", {"PODPLANE_CNI_WAIT": "3600"}
    assert await run(words, path, "DEL", **wait) == Ended(0, b"", b""), "there is no journal"
    journal = attached(tmp_path, "c11", "c2")
    assert await run(words, path, "DEL", **wait) == Ended(0, b"", b"")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert await run(words, path, "DEL", **wait) == Ended(0, b"", b""), "nobody listens there any more"

    async def is_waited_for() -> bool:
        return (await run(words, path, "DEL", PODPLANE_CNI_WAIT="0")).status == 1

    for ifname in ("eth0", "net1"):
        journal.attach(attachment("c1", ifname=ifname), IPS, 0)
    assert await is_waited_for()
    journal.detach(("c1", "eth0"))
    assert await is_waited_for(), "its other interface is there"
    journal.detach(("c1", "net1"))
    assert await run(words, path, "DEL", **wait) == Ended(0, b"", b"")
    journal.attach(attachment("c1", ifname='"}\n'), IPS, 0)
    journal.detach(("c1", "eth0"))
    assert await is_waited_for()
    journal.detach(("c1", '"}\n'))
    journal.compact()
    assert await run(words, path, "DEL", **wait) == Ended(0, b"", b"")
    journal.attach(attachment("c1"), IPS, 0)
    assert await is_waited_for(), "it was attached again"
    (tmp_path / "attachments.journal").unlink()
    (tmp_path / "attachments.journal").mkdir()
    assert await is_waited_for(), "what can't be read may say that it is attached"


@pytest.mark.parametrize("said", ["abc", "-1", "3601", "1e3", "0x10", " 5", "5s", "1_0", "1.2.3", ".", "nan", "inf"])
async def test_a_wait_that_is_no_number_of_seconds_is_refused(words: list[str], tmp_path: Path, said: str) -> None:
    ended = await run(words, tmp_path / "cni.sock", "ADD", PODPLANE_CNI_WAIT=said)
    assert (ended.status, ended.output["code"], ended.output["details"]) == (1, 4, said)
    assert ended.output["msg"] == "PODPLANE_CNI_WAIT is no number of seconds from 0 to 3600"


async def test_a_wait_has_parts_of_a_second_and_an_empty_one_says_nothing(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    attached(tmp_path, "c1")
    for said in ("0.01", "0."):
        assert (await run(words, path, "DEL", PODPLANE_CNI_WAIT=said)).output["code"] == 11
    adding = asyncio.create_task(run(words, path, "ADD", PODPLANE_CNI_WAIT=""))
    await asyncio.sleep(0.1)
    async with Scripted(wire.answer(0, b"{}")).at(path):
        assert await adding == Ended(0, b"{}", b"")


async def test_versions_are_told_without_an_agent_at_once(words: list[str], tmp_path: Path) -> None:
    ended = await run(words, tmp_path / "cni.sock", "VERSION", PODPLANE_CNI_WAIT="3600")
    assert (ended.status, ended.output) == (0, {"cniVersion": "1.0.0", "supportedVersions": list(VERSIONS)})


async def test_an_agent_that_ends_before_it_answers_is_asked_again(words: list[str], tmp_path: Path) -> None:
    agent, path = Scripted(b"", wire.answer(0, b"{}")), tmp_path / "cni.sock"
    async with agent.at(path):
        assert await run(words, path, "ADD", CNI_NETNS="/proc/self/ns/uts") == Ended(0, b"{}", b"")
    first, second = agent.requests
    assert wire.AGAIN not in first.env
    assert second == ({**first.env, wire.AGAIN: "1"}, first.stdin)
    assert len(agent.files) == 2


async def begun(words: list[str], path: Path, verb: str, stdout: int, **env: str) -> asyncio.subprocess.Process:
    """A call that was handed its configuration; its standard output is this descriptor."""
    call = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "PODPLANE_CNI_SOCKET": str(path)}
    variables = {"PATH": os.environ["PATH"]} | call | env
    process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE, stdout=stdout, env=variables)
    os.close(stdout)
    assert process.stdin is not None
    process.stdin.write(STDIN)
    process.stdin.close()
    return process


@pytest.mark.parametrize(("status", "then"), [(0, ["ADD", "DEL"]), (1, ["ADD"])])
async def test_what_was_added_for_an_engine_that_ended_is_taken_back(
    words: list[str], tmp_path: Path, status: int, then: list[str]
) -> None:
    reader, writer = os.pipe()
    requests, netns = list[wire.Request](), "/proc/self/ns/uts"

    async def answer(stream: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        requests.append(wire.parse(await stream.readexactly(wire.length_of(await stream.readexactly(4)))))
        if len(requests) == 1:
            os.close(reader)  # the engine ends
        to.write(wire.answer(status if len(requests) == 1 else 0))
        to.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "cni.sock"):
        process = await begun(words, tmp_path / "cni.sock", "ADD", writer, CNI_NETNS=netns)
        assert await asyncio.wait_for(process.wait(), 30) == 1
    assert [one.env["CNI_COMMAND"] for one in requests] == then
    for one in requests:
        assert one.stdin == STDIN and one.env[wire.FDS] == "netns" and one.env["CNI_CONTAINERID"] == "c1"


async def test_an_answer_that_can_not_be_written_is_taken_back_if_it_is_of_an_add(words: list[str], tmp_path: Path) -> None:
    calls = (("ADD", 0, ["ADD", "DEL"]), ("ADD", 1, ["ADD"]), ("CHECK", 0, ["CHECK"]))  # one that is refused has added nothing
    for number, (verb, status, then) in enumerate(calls):
        agent, path = Scripted(*(wire.answer(status, b"{}") for _ in then)), tmp_path / f"{number}.sock"
        async with agent.at(path):
            process = await begun(words, path, verb, os.open("/dev/full", os.O_WRONLY))
            assert await asyncio.wait_for(process.wait(), 30) == 1
        assert [one.env["CNI_COMMAND"] for one in agent.requests] == then


async def test_an_engine_that_ended_has_nothing_added_later_and_all_deleted(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    attached(tmp_path, "c1")
    (added, add), (deleted, delete) = os.pipe(), os.pipe()
    os.close(added)
    process = await begun(words, path, "ADD", add, PODPLANE_CNI_WAIT="3600")
    assert await asyncio.wait_for(process.wait(), 30) == 1, "it does not wait for an agent"
    os.close(deleted)
    process = await begun(words, path, "DEL", delete)
    agent = Scripted(wire.answer(0))
    async with agent.at(path):
        assert await process.wait() == 0
    assert [one.env["CNI_COMMAND"] for one in agent.requests] == ["DEL"]


async def test_what_can_not_be_asked_is_an_error_of_the_specification(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    long = tmp_path / ("x" * 200)
    (tmp_path / "file").write_text("")
    for path, reason in ((folder, "No such file"), (long, "too long"), (tmp_path / "file" / "sock", "Not a directory")):
        ended = await run(words, path, "ADD", PODPLANE_CNI_WAIT="0")
        assert ended.status == 1 and ended.output["code"] in (5, 11)
        assert reason in ended.output["details"]


async def test_a_command_that_is_none_is_refused_at_once_without_an_agent(words: list[str], tmp_path: Path) -> None:
    for command in ("", "TURN", "add", "ADDED"):
        ended = await run(words, tmp_path / "cni.sock", command, PODPLANE_CNI_WAIT="3600")
        assert (ended.status, ended.output["code"], ended.output["details"]) == (1, 4, command)
        assert ended.output["cniVersion"] == "1.0.0"


async def test_without_a_command_it_says_what_it_is(words: list[str]) -> None:
    ended = await programs.run(words, b"")
    assert (ended.status, ended.stdout) == (1, b"")
    assert b"is a CNI plugin" in ended.stderr


@pytest.mark.parametrize("program", PROGRAMS)
async def test_loopback_answers_what_needs_no_namespace(program: str, tmp_path: Path) -> None:
    words = words_of(program, tmp_path, "loopback")
    for verb in ("GC", "STATUS", "DEL"):
        assert await programs.run(words, STDIN, CNI_COMMAND=verb) == Ended(0, b"", b"")
    assert (await programs.run(words, STDIN, CNI_COMMAND="VERSION")).output["supportedVersions"] == list(VERSIONS)
    for verb, env, stdin, code in (
        ("ADD", {}, STDIN, 4),
        ("ADD", {"CNI_NETNS": str(tmp_path / "gone")}, STDIN, 4),
        ("ADD", {"CNI_NETNS": "/dev/null"}, STDIN, 4),
        ("ADD", {"CNI_NETNS": "/dev/null"}, configuration("0.2.0"), 1),
        ("TURN", {}, STDIN, 4),
    ):
        ended = await programs.run(words, stdin, CNI_COMMAND=verb, **env)
        assert (ended.status, ended.output["code"]) == (1, code)
    assert await programs.run(words, STDIN, CNI_COMMAND="DEL", CNI_NETNS=str(tmp_path / "gone")) == Ended(0, b"", b"")
