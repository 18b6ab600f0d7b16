"""The socket: what comes over it is a stranger's, and calls for one attachment go one after another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podplane.cni import server as server_module
from podplane.cni import tuning, verbs, wire
from podplane.cni.network import TryAgainError, Unready
from podplane.kernel import syscalls
from podplane.kernel.namespace import THREAD_NAMESPACE
from tests.unit.agent.rig import until
from tests.unit.cni.fakes import FakeNetwork, configuration, refused, serving

ENV = {"CNI_CONTAINERID": "c2", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/a"}


@pytest.fixture(scope="module")
def netns() -> int:
    """A descriptor that stands for a pod's network namespace: one is made where that is allowed, else the test is left out."""
    made: list[int] = []

    def make() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
        except OSError:
            return
        made.append(os.open(THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        pytest.skip("making a network namespace needs root")
    return made[0]


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


async def exchange(path: Path, data: bytes, fds: tuple[int, ...] = (), *, end: bool = False) -> bytes:
    """Send these bytes, and read until the end."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, str(path))
        sent = socket.send_fds(connection, [data[:1000]], fds) if fds else 0
        if sent < len(data):  # an agent that has answered already takes not even nothing
            await loop.sock_sendall(connection, data[sent:])
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := await loop.sock_recv(connection, 65536):
            answer += chunk
        return answer


async def ask(path: Path, verb: str, fd: int | None = None, stdin: bytes | None = None, **env: str) -> tuple[int, Any]:
    """Exit status and decoded output of a call."""
    variables = {"CNI_COMMAND": verb, **ENV, **env} | ({} if fd is None else {wire.FDS: wire.NETNS})
    data = wire.request(variables, configuration() if stdin is None else stdin)
    answer = await exchange(path, data, () if fd is None else (fd,))
    return answer[0], msgspec.json.decode(answer[1:]) if answer[1:] else None


async def test_add_check_status_and_delete(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        status, result = await ask(path, "ADD", netns, CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u")
        assert (status, result["ips"][0]["address"]) == (0, "10.244.1.2/32")
        request = network.asked[0][1]
        assert (request.namespace, request.name, request.pod_uid, request.netns_path) == ("default", "web", "u", "/run/netns/a")
        held = request.netns.fd
        assert await ask(path, "CHECK", netns, configuration(prevResult=result)) == (0, None)
        assert await ask(path, "STATUS") == (0, None)
        assert await ask(path, "DEL", CNI_NETNS="") == (0, None)
        assert await ask(path, "DEL", CNI_NETNS="") == (0, None)
        with pytest.raises(ValueError, match="closed"):
            _ = request.netns.fd
        with pytest.raises(OSError):
            os.fstat(held)


async def test_what_a_network_refuses_is_said_with_the_code_for_it(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        for error, code in ((refused(), 100), (TryAgainError("soon"), 11), (ZeroDivisionError("x"), 103)):
            network.error = error
            status, answer = await ask(path, "ADD", netns)
            assert (status, answer["code"]) == (1, code)
            assert str(error) in answer["msg"]
            assert not network.attached
        network.error = None
        network.reason = Unready("starting")
        assert (await ask(path, "STATUS"))[1]["code"] == 50
        network.reason = Unready("no uplink", is_limited=True)
        assert (await ask(path, "STATUS"))[1]["code"] == 51
        made = {"interfaces": [{"name": "eth0", "sandbox": "a"}]}
        assert (await ask(path, "CHECK", netns, configuration(prevResult=made)))[1]["code"] == 3
        _, result = await ask(path, "ADD", netns)
        network.error = refused()
        assert (await ask(path, "CHECK", netns, configuration(prevResult=result)))[1]["code"] == 102
        network.error = None
        before = {"interfaces": [{"name": "eth0", "sandbox": "a"}], "ips": [{"address": "10.9.9.9/24", "interface": 0}]}
        other = configuration(prevResult=before)
        answer = (await ask(path, "CHECK", netns, other))[1]
        assert (answer["code"], "10.9.9.9" in answer["msg"]) == (102, True)


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "GC"])
async def test_before_it_is_known_what_is_attached_nothing_is_done_that_needs_it(tmp_path: Path, verb: str) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    network.beginning = TryAgainError("the agent of this node has not begun")
    async with serving(path, network):
        status, answer = await ask(
            path, verb, stdin=configuration(prevResult={"interfaces": [{"name": "eth0", "sandbox": "a"}]})
        )
        assert (status, answer["code"]) == (1, 11)
        assert not network.asked
        assert await ask(path, "DEL", CNI_NETNS="") == (0, None)


async def test_another_mtu_is_a_fault_unless_tuning_has_set_one(
    tmp_path: Path, netns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    async with serving(path, network):
        for version, known in (("1.0.0", None), ("1.1.0", 1500)):
            _, result = await ask(path, "ADD", netns, configuration(version))
            for said, expected in (("{", known), ('{"mac": "02:00:00:00:00:01"}', known), ('{"mtu": 1500}', 0)):
                (tmp_path / "c2_eth0.json").write_text(said)
                assert await ask(path, "CHECK", netns, configuration(version, prevResult=result)) == (0, None)
                assert network.asked[-1] == ("check", ("c2", "eth0"), expected)
            assert await ask(path, "DEL") == (0, None)
            (tmp_path / "c2_eth0.json").unlink()


async def test_a_namespace_is_one_and_not_the_nodes(tmp_path: Path) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        no_netns = "is not a network namespace"
        for file, reason in (
            ("/proc/self/ns/net", "is the node's own"),
            ("/proc/self/ns/uts", no_netns),
            ("/dev/null", no_netns),
        ):
            with opened(file) as fd:
                status, answer = await ask(path, "ADD", fd)
            assert (status, answer["code"], reason in answer["msg"]) == (1, 4, True)
        status, answer = await ask(path, "ADD", PODPLANE_NETNS_ERROR="2")
        assert (status, answer["code"], answer["msg"]) == (1, 4, "CNI_NETNS /run/netns/a: No such file or directory")
        status, answer = await ask(path, "ADD", PODPLANE_NETNS_ERROR="9" * 20)
        assert (status, answer["code"], answer["msg"]) == (1, 4, "CNI_NETNS /run/netns/a: it was not passed on")
        assert not network.asked


async def test_two_adds_of_one_attachment_attach_it_once(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        network.gate.clear()
        both = [asyncio.create_task(ask(path, "ADD", netns)) for _ in range(2)]
        await until(lambda: bool(network.asked))
        network.gate.set()
        answers = sorted([await one for one in both], key=lambda one: one[0])
        assert [answers[0][0], answers[1][1]["code"]] == [0, 101]
        assert [name for name, _ in network.asked] == ["add"]
        assert (await ask(path, "ADD", netns, PODPLANE_AGAIN="1"))[0] == 0, "a request whose answer was lost is no second one"


async def test_an_add_that_is_asked_again_does_not_take_its_own_interface_for_anothers(
    tmp_path: Path, netns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        assert (await ask(path, "ADD", netns))[0] == 0
        monkeypatch.setattr(verbs, "_has_interface", lambda request: True)
        for network.error, code in ((TryAgainError("soon"), 11), (refused(), 100)):
            _, answer = await ask(path, "ADD", netns, PODPLANE_AGAIN="1")
            assert (answer["code"], answer["msg"]) == (code, str(network.error))
        assert network.attached, "it is as it was"


async def test_an_add_is_taken_back_in_its_own_namespace_alone(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        assert (await ask(path, "ADD", netns))[0] == 0
        with opened("/proc/self/ns/uts") as another:
            assert await ask(path, "DEL", another) == (0, None)
        assert len(network.attached) == 1
        assert await ask(path, "DEL", netns) == (0, None)
        assert not network.attached


async def test_a_delete_during_an_add_leaves_nothing(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        network.gate.clear()
        adding = asyncio.create_task(ask(path, "ADD", netns))
        await until(lambda: bool(network.asked))
        deleting = asyncio.create_task(ask(path, "DEL"))
        await asyncio.sleep(0.01)
        network.gate.set()
        assert [(await adding)[0], (await deleting)[0]] == [0, 0]
        assert not network.attached


async def test_an_add_whose_caller_has_gone_is_undone(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        network.gate.clear()
        adding = asyncio.create_task(ask(path, "ADD", netns))
        await until(lambda: bool(network.asked))
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        network.gate.set()
        await until(lambda: ("delete", ("c2", "eth0")) in network.asked)
        assert not network.attached


async def test_gc_detaches_what_is_not_named_of_its_own_network(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        for container in ("c2", "c3"):
            await ask(path, "ADD", netns, CNI_CONTAINERID=container)
        await ask(path, "ADD", netns, configuration(name="other"), CNI_CONTAINERID="c4")
        assert await ask(path, "GC") == (0, None)
        assert len(network.attached) == 3, "no list of valid attachments is not an empty one"
        gone = network.attached["c3", "eth0"].netns
        kept = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        assert await ask(path, "GC", stdin=configuration(**kept)) == (0, None)
        assert network.attached.keys() == {("c2", "eth0"), ("c4", "eth0")}
        with pytest.raises(ValueError, match="closed"):
            _ = gone.fd


async def test_only_root_is_served(tmp_path: Path) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network, user=os.getuid() + 1):
        status, answer = await ask(path, "DEL")
        assert (status, answer["code"], network.asked) == (1, 100, [])
        assert f"not user {os.getuid()}" in answer["msg"]


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", True),
        (b"\0\0", True),
        (b"\0\0\0\x0aCNI", True),
        (b"\xff\xff\xff\xff", False),
        (wire.LENGTH.pack(3) + b"abc", False),
        (wire.LENGTH.pack(4) + b"a\0\0\0", False),
        (wire.LENGTH.pack(6) + b"a=\xff\0\0\0", False),
        (wire.LENGTH.pack(1) + b"\0\0", False),
    ],
)
async def test_what_is_no_request_is_answered_and_forgotten(tmp_path: Path, data: bytes, end: bool) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        answer = await exchange(path, data, end=end)
        assert answer[0] == 1
        assert msgspec.json.decode(answer[1:])["code"] in (4, 5)
        assert (await ask(path, "DEL"))[0] == 0


async def test_a_caller_that_says_nothing_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "READ_SECONDS", 0.01)
    path = tmp_path / "cni.sock"
    async with serving(path, FakeNetwork()):
        answer = await exchange(path, b"\0")
        assert b"no whole request" in answer


async def test_too_many_descriptors_are_refused_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    before = len(os.listdir("/proc/self/fd"))
    async with serving(path, FakeNetwork()):
        with opened("/dev/null") as null:
            answer = await exchange(path, wire.request({"CNI_COMMAND": "VERSION"}, b""), (null,) * 30)
        assert b"descriptors" in answer
    assert len(os.listdir("/proc/self/fd")) == before


async def test_descriptors_that_are_not_known_are_closed(tmp_path: Path, netns: int) -> None:
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        before = len(os.listdir("/proc/self/fd"))
        names = {wire.FDS: "netns,later,netns,", "CNI_COMMAND": "ADD"}
        for fds in ((netns,), (netns,) * 3, (netns,) * 4):
            answer = await exchange(path, wire.request(ENV | names, configuration()), fds)
            assert answer[0] == 0
            await ask(path, "DEL")
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)


async def test_what_is_no_socket_of_the_namespace_is_refused(tmp_path: Path, netns: int) -> None:
    path = tmp_path / "cni.sock"
    async with serving(path, FakeNetwork()):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as here:
            env = ENV | {"CNI_COMMAND": "ADD", wire.FDS: "netns,route"}
            answer = await exchange(path, wire.request(env, configuration()), (netns, here.fileno()))
    assert b"route is no netlink socket of that kind from there" in answer


async def test_more_callers_than_are_seen_to_at_once_wait(tmp_path: Path, netns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CALLERS", 8)
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    async with serving(path, network):
        network.gate.clear()
        calls = [asyncio.create_task(ask(path, "ADD", netns, CNI_CONTAINERID=f"c{n}")) for n in range(40)]
        await until(lambda: len(network.asked) >= 8)
        await asyncio.sleep(0.02)
        assert len(network.asked) == 8
        network.gate.set()
        assert [status for status, _ in await asyncio.gather(*calls)] == [0] * 40


async def test_a_thousand_callers_at_once_are_all_answered(tmp_path: Path, netns: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4096:
        pytest.skip(f"this process may have {before[1]} open files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    network, path = FakeNetwork(), tmp_path / "cni.sock"
    try:
        async with serving(path, network):
            answers = await asyncio.gather(*(ask(path, "ADD", netns, CNI_CONTAINERID=f"n{n}") for n in range(1000)))
            assert {status for status, _ in answers} == {0} and len(network.attached) == 1000
            await asyncio.gather(*(ask(path, "DEL", CNI_CONTAINERID=f"n{n}") for n in range(1000)))
            assert not network.attached
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_the_socket_replaces_a_dead_agents_and_is_not_anothers(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path, FakeNetwork()):
        assert path.stat().st_mode & 0o777 == 0o600
        assert (await ask(path, "VERSION"))[1]["supportedVersions"][0] == "0.3.0"
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_a_path_longer_than_an_address_is_served(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    async with serving(folder / "cni.sock", FakeNetwork()):
        assert (folder / "cni.sock").is_socket()
    assert list(folder.iterdir()) == []
