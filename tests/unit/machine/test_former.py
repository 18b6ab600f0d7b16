"""The network that a machine is migrated from, as its files and the kernel have it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from podplane.machine.former import Former
from podplane.model.answers import FormerNetwork
from podplane.model.pod_info import PodInfo, SlimMetadata
from podplane.state.network import Link
from podplane.state.value import Value

BRIDGE = Link(name="cni0", kind="bridge")
PORT = Link(name="veth1", kind="veth", master="cni0")
OTHERS = (Link(name="eth0"), Link(name="veth9", kind="veth", master="docker0"))


def given(folder: Path, ip: str = "10.244.1.5", content: str = "c1\r\neth0", **result: Any) -> Former:
    """One that has given an address to a container; with `result`, libcni's file of it."""
    for one in ("networks/cbr0", "results"):
        (folder / one).mkdir(parents=True, exist_ok=True)
    (folder / "networks/cbr0" / ip).write_text(content)
    if result:
        (folder / "results/cbr0-c1-eth0").write_text(json.dumps(result))
    return Former("cni0", folder)


def seen(former: Former, *values: Value) -> Former:
    former.look((*OTHERS, *values))
    return former


def interfaces(path: Path) -> dict[str, Any]:
    """As the plugin bridge tells them."""
    return {"interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": str(path)}]}


@pytest.mark.parametrize("is_newer", [False, True])
def test_an_address_is_had_as_long_as_the_network_namespace_of_its_container_is_there(tmp_path: Path, is_newer: bool) -> None:
    netns = tmp_path / "cni-1"
    netns.touch()
    result = {"netns": str(netns), "result": {"interfaces": []}} if is_newer else {"result": interfaces(netns)}
    former = seen(given(tmp_path, **result), BRIDGE)
    assert "10.244.1.5" in former.addresses() and "10.244.1.6" not in former.addresses(), (
        "nothing else is, whatever else is there"
    )
    netns.unlink()
    assert "10.244.1.5" not in seen(former, BRIDGE, PORT).addresses(), "host-local keeps its file for ever"


@pytest.mark.parametrize("content", ["c1\r\neth0", "c1", "c1\neth0", ""])
def test_where_nothing_tells_of_the_namespace_it_is_had_while_anything_is_on_the_bridge(tmp_path: Path, content: str) -> None:
    former = seen(given(tmp_path, content=content), BRIDGE, PORT)
    assert "10.244.1.5" in former.addresses()
    assert "10.244.1.5" not in seen(former, BRIDGE).addresses()
    assert "10.244.1.5" not in seen(former).addresses(), "the bridge is gone"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"result": {"interfaces": 7}}', '{"result": {"interfaces": [7]}}', '{"result": null}']
)
def test_a_file_of_libcni_that_makes_no_sense_is_as_none(tmp_path: Path, text: str) -> None:
    former = seen(given(tmp_path), BRIDGE, PORT)
    (tmp_path / "results/cbr0-c1-eth0").write_text(text)
    assert "10.244.1.5" in former.addresses()


def test_an_address_of_ipv6_and_one_of_several_networks_are_found(tmp_path: Path) -> None:
    former = seen(given(tmp_path, "fd00::5"), BRIDGE, PORT)
    (tmp_path / "networks/other").mkdir()
    (tmp_path / "networks/other/10.9.0.2").write_bytes(b"\xff")
    assert "fd00::5" in former.addresses() and "10.9.0.2" not in former.addresses() and "lock" not in former.addresses()


async def test_a_machine_without_such_files_or_that_is_not_migrated_has_none(tmp_path: Path) -> None:
    assert "10.244.1.5" not in Former("cni0", tmp_path / "none").addresses()
    given(tmp_path, netns=str(tmp_path), result={"interfaces": []})
    unconcerned = Former("", tmp_path)
    unconcerned.look([BRIDGE, PORT])
    assert not await unconcerned.given() and unconcerned.report([], "node1", lambda uid: False) is None


async def test_files_are_read_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(Former, "addresses", lambda former: threads.append(threading.get_ident()) or frozenset({"10.244.1.5"}))
    assert await Former("cni0", tmp_path).given() == {"10.244.1.5"}
    assert len(threads) == 1 and threads[0] != threading.get_ident()


def test_what_a_file_says_is_read_once_and_anew_when_another_container_has_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netns = tmp_path / "cni-1"
    netns.touch()
    former = seen(given(tmp_path, netns=str(netns), result={"interfaces": []}), BRIDGE, PORT)
    assert former.addresses() == {"10.244.1.5"}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda path: pytest.fail(f"{path} is read once more"))
        assert former.addresses() == {"10.244.1.5"}
        netns.unlink()
        assert former.addresses() == frozenset()
    file = tmp_path / "networks/cbr0/10.244.1.5"
    file.write_text("c2\r\neth0")
    os.utime(file, ns=(1, 1))
    assert former.addresses() == {"10.244.1.5"}, "nothing tells where its namespace is, and there is something on the bridge"


def pod(name: str, **more: Any) -> PodInfo:
    fields = {"node": "node1", "ips": ("10.244.1.5",), "phase": "Running"} | more
    return PodInfo(metadata=SlimMetadata(name, "shop", f"uid-{name}"), **fields)


def test_the_pods_that_are_left_are_those_that_podplane_did_not_attach(tmp_path: Path) -> None:
    former = Former("cni0", tmp_path)
    pods = [
        pod("b"),
        pod("a"),
        pod("ours"),
        pod("elsewhere", node="node2"),
        pod("host", host_network=True),
        pod("new", ips=()),
        pod("done", phase="Succeeded"),
    ]
    assert former.report(pods, "node1", {"uid-ours"}.__contains__) is None, "nobody has looked"
    found = seen(former, BRIDGE, PORT).report(pods, "node1", {"uid-ours"}.__contains__)
    assert found == FormerNetwork("cni0", 1, ["shop/a", "shop/b"])
    assert seen(former, Link(name="cni0", kind="dummy")).report(pods, "node1", bool) is None, "that is no bridge"


@pytest.mark.parametrize("name", ["networks/cbr0/10.244.1.5", "results/cbr0-c1-eth0"])
@pytest.mark.parametrize("what", ["fifo", "endless"])
def test_no_look_at_what_is_no_file_waits_or_reads_without_end(tmp_path: Path, name: str, what: str) -> None:
    former, path = seen(given(tmp_path, netns=str(tmp_path)), BRIDGE, PORT), tmp_path / name
    path.unlink()
    os.mkfifo(path) if what == "fifo" else path.symlink_to("/dev/zero")
    assert ("10.244.1.5" in former.addresses()) is (name.startswith("results")), (
        "by the bridge, where only libcni's file makes no sense"
    )


@pytest.mark.parametrize("content", ["c1\0\neth0", "c1\ud800", "c1\n" + "e" * 5000])
def test_names_that_no_file_can_have_are_as_those_without_one(tmp_path: Path, content: str) -> None:
    former = seen(given(tmp_path, content=""), BRIDGE, PORT)
    (tmp_path / "networks/cbr0/10.244.1.5").write_bytes(content.encode(errors="surrogatepass"))
    assert ("10.244.1.5" in former.addresses()) is ("\ud800" not in content)


def test_a_result_of_many_levels_is_as_none(tmp_path: Path) -> None:
    former = seen(given(tmp_path, netns=str(tmp_path)), BRIDGE, PORT)
    (tmp_path / "results/cbr0-c1-eth0").write_text('{"result": ' + "[" * 100_000)
    assert "10.244.1.5" in former.addresses()
    (tmp_path / "results/cbr0-c1-eth0").write_text('{"netns": "/run/netns/a\\u0000b", "result": {"interfaces": []}}')
    assert "10.244.1.5" not in former.addresses(), "no such namespace can be there"
