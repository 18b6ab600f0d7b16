"""`podplane dns log`: lines of all nodes in the order of their times, each once, and why there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from podplane.cli.dns import log as module
from podplane.kubeapi.errors import ApiError
from podplane.lab.errors import LabError
from podplane.model.name_server import QueryLine, QueryLines
from podplane.nameserver.query_log import text

ALL = ("default/web", "shop/*")


def line(number: int, at: float, node: str = "node1", pod: str = "default/web", name: str = "a.example.") -> QueryLine:
    return QueryLine(
        number=number,
        time=at,
        node=node,
        client="10.244.1.2",
        pod=pod,
        name=name,
        type="A",
        rcode="NOERROR",
        source="x",
        microseconds=5,
    )


class Lab:
    """A client of a lab whose name servers have these lines, of one process."""

    def __init__(self, pods: tuple[str, ...] = ALL, names: tuple[str, ...] = ()) -> None:
        self.pods, self.names = pods, names
        self.lines: list[QueryLine] = []
        self.away: set[str] = set()

    @contextlib.contextmanager
    def another(self, seconds: float) -> Iterator[Lab]:
        yield self

    def objects(self, resource: str) -> list[dict[str, Any]]:
        assert resource == "nodes"
        return [{"metadata": {"name": name}} for name in ("node1", "node2")]

    def of_node(self, node: str, port: int, path: str) -> Any:
        assert port == 9153
        if node in self.away:
            raise ApiError(503, "ServiceUnavailable", "connection refused")
        after = int(path.removeprefix("log/"))
        last = max((one.number for one in self.lines), default=0)
        found = [one for one in self.lines if one.node == node and one.number > after]
        return msgspec.to_builtins(QueryLines(number=last, pods=list(self.pods), names=list(self.names), lines=found))


def run(lab: Lab, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(module, "connect", lambda folder: lab)
    result = CliRunner().invoke(module.log, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


def test_lines_of_all_nodes_are_in_the_order_of_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    lab.lines = [line(1, 3.0), line(2, 1.0, "node2"), line(3, 2.0)]
    assert run(lab, monkeypatch) == [text(one) for one in sorted(lab.lines, key=lambda one: one.time)]
    assert run(lab, monkeypatch, "--node", "node2") == [text(lab.lines[1])]
    assert msgspec.json.decode(run(lab, monkeypatch, "--node", "node2", "-o", "json")[0], type=QueryLine) == lab.lines[1]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (("--pod", "web"), [1, 3]),
        (("--pod", "shop/api"), [2]),
        (("-n", "shop", "--pod", "api"), [2]),
        (("--for", "A.Example"), [1, 2]),
        (("--for", "."), [1, 2, 3]),
        (("--for", "xample"), []),
        (("--pod", "web", "--for", "example."), [1, 3]),
    ],
)
def test_lines_are_chosen(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], numbers: list[int]) -> None:
    lab = Lab()
    lab.lines = [line(1, 1.0), line(2, 2.0, pod="shop/api", name="b.a.example."), line(3, 3.0, name="aa.example.")]
    assert run(lab, monkeypatch, *arguments) == [text(lab.lines[number - 1]) for number in numbers]


def test_each_line_comes_once_also_when_a_server_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    rounds = iter([[line(1, 1.0), line(2, 2.0)], [line(1, 1.0), line(2, 2.0), line(3, 3.0)], [line(1, 4.0)], [line(1, 4.0)]])

    def wait(_: float) -> None:
        lines = next(rounds, None)
        if lines is None:
            raise KeyboardInterrupt
        lab.lines = lines

    monkeypatch.setattr("podplane.cli.dns.log.time.sleep", wait)
    monkeypatch.setattr(module, "connect", lambda folder: lab)
    result = CliRunner().invoke(module.log, ["--follow"])
    assert [one.split()[0] for one in result.output.splitlines() if one.startswith("time=")] == [
        f"time=1970-01-01T00:00:0{second}.000Z" for second in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("pods", "names", "arguments", "why"),
    [
        ((), (), (), "nothing is logged: `kubectl -n kube-system edit configmap podplane-dns`"),
        ((), (), ("--pod", "web"), r"nothing is logged: .*log: {pods: \[default/web\]}"),
        (("default/api",), (), ("--pod", "web"), "questions of default/web are not logged: "),
        (ALL, (), ("--pod", "a/b/c"), "'a/b/c' is no pod"),
        (ALL, (), ("--for", "a..b"), "'a..b' is no name"),
        (ALL, (), ("--node", "node9"), "there is no node 'node9': this lab has node1, node2"),
    ],
)
def test_why_there_are_none(
    monkeypatch: pytest.MonkeyPatch, pods: tuple[str, ...], names: tuple[str, ...], arguments: tuple[str, ...], why: str
) -> None:
    with pytest.raises(LabError, match=why):
        run(Lab(pods, names), monkeypatch, *arguments)


def test_a_pod_that_asks_for_a_logged_name_may_have_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(Lab((), ("example.test.",)), monkeypatch, "--pod", "web") == []
    assert run(Lab(("shop/*",)), monkeypatch, "--pod", "shop/any") == []


def test_a_node_that_does_not_answer_is_told_and_the_others_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    lab.lines, lab.away = [line(1, 1.0)], {"node2"}
    assert run(lab, monkeypatch) == ["the name server of node2 does not answer: connection refused", text(lab.lines[0])]
    lab.away = {"node1", "node2"}
    with pytest.raises(LabError, match="the name server of node1 does not answer: connection refused"):
        run(lab, monkeypatch)
