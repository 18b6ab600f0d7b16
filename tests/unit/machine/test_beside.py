"""What is said of kube-proxy beside podplane, and when what it left is removed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from podplane.kernel.errors import KernelError
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.nft.others import Place
from podplane.machine import beside, firewall_remedies, firewalls, kube_proxy
from podplane.machine.beside import Asked, Beside, Seen, about_proxy, is_of_proxy
from podplane.machine.kube_proxy import Left
from podplane.model.config import NetworkConfig
from podplane.state.ownership import Ownership

LEFT = Left((("ip", "kube-proxy"),), (Place("ip", "nat", "KUBE-SERVICES"),))
UNREACHED = Left(unreached=("link kube-ipvs0 (IPVS)",))


def pod(name: str, node: str = "node1", *, has_ended: bool = False) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(name=name, namespace="kube-system"), node=node, has_ended=has_ended)


@pytest.mark.parametrize(
    ("seen", "serves", "words"),
    [
        (Seen(), True, ""),
        (
            Seen(left=LEFT, why_runs="its pod p"),
            True,
            "kube-proxy runs here (its pod p), and podplane serves Services, too: end it",
        ),
        (Seen(left=LEFT), True, "left table ip kube-proxy, 1 chain of iptables (KUBE-…), so packets"),
        (Seen(left=UNREACHED), True, "`kube-proxy --cleanup`"),
        (Seen(left=LEFT, why_runs="its pod p"), False, ""),
        (Seen(why_runs="port 10249 …"), False, ""),
        (Seen(), False, "there is none here: they lead nowhere"),
    ],
)
def test_what_is_wrong_about_kube_proxy_is_said(seen: Seen, serves: bool, words: str) -> None:
    found = about_proxy(seen, serves=serves)
    assert words in found and bool(found) == bool(words)


def test_a_pod_of_kube_proxy_is_known_by_its_name_and_node() -> None:
    assert is_of_proxy(pod("kube-proxy-x7k2p"), "node1") and is_of_proxy(pod("kube-proxy-node1"), "node1")
    assert not is_of_proxy(pod("kube-proxy-x7k2p", "node2"), "node1")
    assert not is_of_proxy(pod("kube-proxy-x7k2p", has_ended=True), "node1")
    assert not is_of_proxy(pod("coredns-1"), "node1")


class Machine:
    """Its kernel has what `left` says; kube-proxy runs while `why_runs` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, clean: bool = True) -> None:
        self.left, self.why_runs, self.removed = LEFT, "", list[Left]()
        self.told = list[str]()
        self.lines = ["a firewall drops"]
        monkeypatch.setattr(kube_proxy, "left", lambda *arguments: self.left)
        monkeypatch.setattr(kube_proxy, "why_runs", lambda: self.why_runs)
        monkeypatch.setattr(kube_proxy, "remove", self._remove)
        monkeypatch.setattr(firewalls, "suspects", lambda *arguments: [])
        monkeypatch.setattr(firewall_remedies, "sentences", lambda *arguments: self.lines)
        monkeypatch.setattr(beside.legacy_iptables, "read", lambda namespace: [])
        monkeypatch.setattr(beside, "Tables", lambda namespace: _Nothing())
        self.pods: tuple[Any, ...] = ()
        self.beside = Beside(CurrentNamespace(), "node1", lambda: None, list, self.told.append, serves=True, clean=clean)

    def _remove(self, tables: object, found: Left) -> None:
        self.removed.append(found)
        self.left = Left()

    def look(self) -> None:
        asked = Asked((), NetworkConfig(("10.244.0.0/16",)), Ownership(), self.pods)
        self.beside._heard(self.beside.look(asked))


class _Nothing:
    generations = itertools.count()

    @property
    def generation(self) -> int:
        return next(self.generations)

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing."""


def test_what_it_left_is_removed_once_it_is_gone_for_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.pods = (pod("kube-proxy-x7k2p"),)
    machine.look()
    machine.pods, machine.why_runs = (), "port 10249 …"
    machine.look()
    machine.why_runs = ""
    machine.look()
    assert not machine.removed, "it may only be started anew"
    machine.pods = (pod("kube-proxy-8hbn4"),)
    machine.look()
    machine.pods = ()
    machine.look()
    assert not machine.removed
    machine.look()
    assert machine.removed == [LEFT]
    assert (
        machine.told[-1] == "kube-proxy is gone, and what it left is removed: table ip kube-proxy, 1 chain of iptables (KUBE-…)"
    )
    assert machine.beside.without == ["a firewall drops"]


def test_tables_are_not_read_again_while_nobody_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, read = Machine(monkeypatch), list[int]()
    monkeypatch.setattr(kube_proxy, "left", lambda *arguments: read.append(1) or Left())
    monkeypatch.setattr(_Nothing, "generation", 7)
    machine.look()
    machine.look()
    assert len(read) == 1
    monkeypatch.setattr(_Nothing, "generation", 8)
    machine.look()
    assert len(read) == 2


def test_without_being_told_nothing_is_removed_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, clean=False)
    for _ in range(4):
        machine.look()
    assert not machine.removed and len(machine.told) == 2
    assert "`podplane agent clean-kube-proxy` on the node" in machine.beside.without[1]
    machine.left, machine.lines = Left(), []
    machine.look()
    assert machine.beside.without == []


def test_what_can_not_be_removed_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tables: object, found: Left) -> None:
        raise KernelError("delete chain KUBE-SERVICES", "Device or resource busy", 16)

    machine = Machine(monkeypatch)
    monkeypatch.setattr(kube_proxy, "remove", refuse)
    machine.look()
    machine.look()
    firewall, left, refused = machine.beside.without
    assert firewall == "a firewall drops" and left.startswith("kube-proxy is gone and left ")
    assert refused.startswith("what kube-proxy left can't be removed: ") and "Device or resource busy" in refused
    machine.lines = []
    machine.look()
    assert len(machine.beside.without) == 2, "it is looked for again"
