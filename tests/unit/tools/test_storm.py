"""The storm notices what is lost: its own memory of writes, addresses, and the processes that it kills."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from podplane.kubeapi.errors import ApiError, NotFound
from tools.storm import Record, Storm, descendants, doubled


class FakeClient:
    """ConfigMaps by name; the next call may go unanswered, before or after it took effect."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.fails = ""

    def get(self, _: str, __: str, name: str) -> Any:
        if name not in self.numbers:
            raise NotFound(404, "NotFound", name)
        return {"data": {"n": str(self.numbers[name])}}

    def create(self, _: str, __: str, body: Any) -> None:
        self._do(body["metadata"]["name"], int(body["data"]["n"]))

    def patch(self, _: str, __: str, name: str, body: Any) -> None:
        self._do(name, int(body["data"]["n"]))

    def delete(self, _: str, __: str, name: str) -> None:
        self._do(name, None)

    def _do(self, name: str, number: int | None) -> None:
        fails, self.fails = self.fails, ""
        if fails != "before":
            self.numbers.pop(name, None)
            self.numbers |= {name: number} if number is not None else {}
        if fails:
            raise ApiError(503, "ServiceUnavailable", "it was killed")


def test_what_was_acknowledged_must_be_there() -> None:
    record, client = Record("w0"), FakeClient()
    for _ in range(3):
        Storm._one(client, record, "a", deletes=False)  # type: ignore[arg-type]
    assert (record.acknowledged, list(record.wrong(client.numbers)), record.writes) == ({"a": 2}, [], 3)
    assert list(record.wrong({})) == ["a is None, acknowledged was 2, sent nothing more"]
    assert list(record.wrong({"a": 1}))
    Storm._one(client, record, "a", deletes=True)  # type: ignore[arg-type]
    assert list(record.wrong({})) == []
    assert list(record.wrong({"a": 2})) == ["a is 2, acknowledged was None, sent nothing more"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_of_what_was_not_answered_both_may_be(when: str) -> None:
    record, client = Record("w0"), FakeClient()
    Storm._one(client, record, "a", deletes=False)  # type: ignore[arg-type]
    client.fails = when
    with pytest.raises(ApiError):
        Storm._one(client, record, "a", deletes=True)  # type: ignore[arg-type]
    assert [list(record.wrong(stored)) for stored in ({"a": 0}, {})] == [[], []]
    assert list(record.wrong({"a": 7}))
    Storm._one(client, record, "a", deletes=False)  # type: ignore[arg-type]
    assert (list(record.wrong(client.numbers)), record.asked) == ([], {})


def test_addresses_that_two_pods_have() -> None:
    def pod(name: str, ip: str, phase: str = "Running", **spec: Any) -> Any:
        return {"metadata": {"name": name}, "spec": spec, "status": {"phase": phase, "podIPs": [{"ip": ip}]}}

    fine = [pod("a", "10.0.0.1"), pod("b", "10.0.0.1", "Failed"), pod("c", "10.0.0.9", hostNetwork=True), pod("d", "10.0.0.9")]
    assert list(doubled(fine)) == []
    assert list(doubled([*fine, pod("e", "10.0.0.1")])) == ["10.0.0.1 is the address of a, e"]


def test_the_processes_below_one() -> None:
    script = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (sleeper,) = descendants(process.pid)
        assert process.pid in descendants(os.getpid())
        os.kill(sleeper, 9)
        process.kill()
