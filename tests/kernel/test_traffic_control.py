"""Shapers and filters in the real kernel: what is applied is read back, `tc` agrees, and what somebody else does is noticed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace
from podplane.kernel.opener import KernelOpener
from podplane.kernel.rtnl.conflicts import ForeignObject
from podplane.kernel.text import ip as text
from podplane.state.network import Link, Peer, Qdisc, Redirect
from podplane.state.operations import Observation, Operation, Report
from podplane.state.ownership import link_alias
from podplane.state.value import Value
from tests.kernel.test_monitor import changes
from tests.plans import OWNER

pytestmark = pytest.mark.kernel
PORT = Link(name="pp1", kind="veth", alias=link_alias("pod/default/web"), peer=Peer(name="far1"))
TURN = Link(name="pp1i", kind="ifb", alias=link_alias("pod/default/web"))
SHAPER = Qdisc(link="pp1", rate=1_250_000, burst=16384, limit=65536)
TURNED = Qdisc(link="pp1i", rate=125_000, burst=8192, limit=32768)
REDIRECT = Redirect(link="pp1", to="pp1i")
ALL: list[Value] = [PORT, TURN, SHAPER, TURNED, REDIRECT]


def run(script: str) -> str:
    """Commands, a line each; what they print."""
    if shutil.which("tc") is None:
        pytest.skip("tc is not installed")
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(what: str) -> list[dict[str, Any]]:
    """What `tc` shows, without what differs by chance."""
    found: list[dict[str, Any]] = json.loads(run(f"tc -j {what}"))
    return [{k: v for k, v in one.items() if k not in ("dev", "refcnt")} for one in found]


def door() -> Kernel:
    return Kernel(CurrentNamespace(), KernelOpener())


def put(kernel: Kernel, values: Iterable[Value], old: Value | None = None) -> Report:
    report = kernel.apply([Operation(old, value) for value in values])
    assert not report.failed, [str(f) for f in report.failed]
    return report


def foreign(command: str, kernel: Kernel, values: Iterable[Value] = ALL) -> None:
    """These are there, and then somebody does something."""
    put(kernel, values)
    run(command)


def test_what_is_applied_is_read_back_and_goes_without_a_trace() -> None:
    kernel = door()
    before = run("tc qdisc show; ip -o link show")
    put(kernel, ALL)
    found = kernel.read(OWNER)
    assert set(found) == {value.identity for value in ALL}
    assert all(kernel.matches(value, found[value.identity]) for value in ALL)
    report = kernel.apply([Operation(value, None) for value in ALL[2:]])
    assert not report.failed and set(kernel.read(OWNER)) == {PORT.identity, TURN.identity}
    assert "tbf" not in run("tc qdisc show") and "clsact" not in run("tc qdisc show")
    put(kernel, ALL[2:])
    assert not kernel.apply([Operation(value, None) for value in reversed(ALL)]).failed
    assert run("tc qdisc show; ip -o link show") == before


def test_a_link_that_refuses_to_be_given_a_mac_is_set_down_and_deleted_as_it_was_read() -> None:
    kernel = door()
    put(kernel, ALL)
    found = kernel.read(OWNER)[TURN.identity]
    assert isinstance(found, Link) and found.mac
    down = msgspec.structs.replace(found, up=False)
    put(kernel, [down], old=found)
    there = kernel.read(OWNER)[TURN.identity]
    assert isinstance(there, Link) and not there.up
    assert not kernel.apply([Operation(down, None)]).failed


def test_applying_twice_changes_nothing() -> None:
    kernel = door()
    put(kernel, ALL)
    before = run("tc -d qdisc show; tc -d filter show dev pp1 ingress")
    put(kernel, ALL)
    assert run("tc -d qdisc show; tc -d filter show dev pp1 ingress") == before


@given(
    st.integers(125, 1 << 46),
    st.integers(2048, 0xFFFF_FFFF),
    st.integers(4096, 0xFFFF_FFFF),
)
@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=40)
def test_any_shaper_is_read_back_as_it_was_written(rate: int, burst: int, limit: int) -> None:
    kernel = door()
    put(kernel, [PORT])
    wanted = Qdisc(link="pp1", rate=rate, burst=burst, limit=limit)
    put(kernel, [wanted])
    found = kernel.read(OWNER)[wanted.identity]
    assert kernel.matches(wanted, found), (wanted, found)
    if burst > 1000 and rate < burst * 1000:
        assert not kernel.matches(msgspec.structs.replace(wanted, burst=burst - burst // 100), found)
    for field in ("rate", "limit"):
        assert not kernel.matches(msgspec.structs.replace(wanted, **{field: getattr(wanted, field) + 1}), found)
    put(kernel, [SHAPER], old=found)
    assert kernel.matches(SHAPER, kernel.read(OWNER)[SHAPER.identity]), "what is there is changed in place"
    kernel.apply([Operation(SHAPER, None)])


def test_tc_would_make_the_same_of_our_text() -> None:
    kernel = door()
    put(kernel, ALL)
    ours = [shown(f"qdisc show dev {link}") for link in ("pp1", "pp1i")], shown("filter show dev pp1 ingress")
    kernel.apply([Operation(value, None) for value in (REDIRECT, SHAPER, TURNED)])
    run("\n".join(["tc qdisc add dev pp1 clsact", *(text.line(value) for value in ALL[2:])]))
    theirs = [shown(f"qdisc show dev {link}") for link in ("pp1", "pp1i")], shown("filter show dev pp1 ingress")
    assert _same(theirs) == _same(ours)
    found = kernel.read(OWNER)
    assert all(kernel.matches(value, found[value.identity]) for value in ALL)


def _same(found: Any) -> str:
    """The order in which the qdiscs of a link were made does not matter, nor the number of an action."""
    qdiscs, filters = found
    for one in filters:
        for action in one.get("options", {}).get("actions", ()):
            action.pop("index", None)
    return json.dumps([[sorted(json.dumps(q, sort_keys=True) for q in link) for link in qdiscs], filters], sort_keys=True)


@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("tc qdisc delete dev pp1 root", [SHAPER]),
        ("tc qdisc delete dev pp1i root", [TURNED]),
        ("tc qdisc delete dev pp1 clsact", [REDIRECT]),
        ("tc filter delete dev pp1 ingress", [REDIRECT]),
        ("tc filter delete dev pp1 ingress pref 28784", [REDIRECT]),
        ("tc filter delete dev pp1 ingress pref 28784 handle 800::800 u32", [REDIRECT]),
    ],
)
def test_what_somebody_deletes_is_observed_as_gone_and_what_we_put_back_is_not(command: str, values: list[Value]) -> None:
    kernel = door()
    put(kernel, ALL)
    monitor = kernel.monitor(OWNER)
    changes(monitor)
    run(command)
    assert changes(monitor).observations == [Observation(value.identity, None) for value in values]
    put(kernel, values)
    assert changes(monitor).observations == []
    assert all(kernel.matches(value, kernel.read(OWNER)[value.identity]) for value in ALL)


def test_what_somebody_puts_in_our_place_is_observed() -> None:
    kernel = door()
    put(kernel, ALL)
    monitor = kernel.monitor(OWNER)
    changes(monitor)
    run("tc qdisc change dev pp1 root handle 7070: tbf rate 1mbit burst 16384b limit 65536b")
    ((identity, value),) = changes(monitor).observations
    assert identity == SHAPER.identity and value is not None and not kernel.matches(SHAPER, value)
    put(kernel, [SHAPER], old=value)
    run("tc qdisc replace dev pp1 root handle 8001: pfifo limit 10")
    assert changes(monitor).observations == [Observation(SHAPER.identity, Qdisc(link="pp1", kind="pfifo", handle=0x8001))]
    run(f"tc filter delete dev pp1 ingress\n{text.line(Redirect(link='pp1', to='lo'))}")
    assert changes(monitor).observations == [Observation(REDIRECT.identity, Redirect(link="pp1", to="lo"))]
    put(kernel, [REDIRECT])
    run(f"tc filter delete dev pp1 ingress\n{text.line(REDIRECT).replace('u32 0 0', 'u32 1 0xff at 0')}")
    assert changes(monitor).observations == [Observation(REDIRECT.identity, Redirect(link="pp1", to=""))]
    put(kernel, [REDIRECT], old=Redirect(link="pp1", to=""))
    assert len(shown("filter show dev pp1 ingress")) == 3, "a table of keys, its row, and the filter"


def test_the_qdisc_of_somebody_else_stays_and_is_named() -> None:
    kernel = door()
    put(kernel, [PORT])
    run("tc qdisc add dev pp1 root handle 8001: pfifo limit 10")
    assert SHAPER.identity not in kernel.read(OWNER)
    for old in (None, SHAPER):
        (failure,) = kernel.apply([Operation(old, SHAPER)]).failed
        assert isinstance(failure.error, ForeignObject)
        words = "there is one that podplane did not make: tc qdisc add dev pp1 root handle 8001: pfifo"
        assert words in str(failure.error) and "remove it (tc qdisc delete)" in str(failure.error)
    assert not kernel.apply([Operation(SHAPER, None)]).failed
    assert [one["kind"] for one in shown("qdisc show dev pp1")] == ["pfifo"]


def test_deleting_what_is_gone_is_done() -> None:
    kernel = door()
    put(kernel, [PORT, TURN])
    assert not kernel.apply([Operation(value, None) for value in (SHAPER, TURNED, REDIRECT)]).failed
    kernel.apply([Operation(PORT, None), Operation(TURN, None)])
    assert not kernel.apply([Operation(value, None) for value in (SHAPER, TURNED, REDIRECT)]).failed


def test_filters_of_others_stay_and_so_does_the_qdisc_that_they_lie_in() -> None:
    kernel = door()
    put(kernel, [PORT, TURN])
    run(
        "tc qdisc add dev pp1 clsact\ntc filter add dev pp1 egress pref 5 protocol all u32 match u32 0 0 action mirred egress mirror dev lo"
    )
    put(kernel, [REDIRECT])
    assert REDIRECT.identity in kernel.read(OWNER)
    assert not kernel.apply([Operation(REDIRECT, None)]).failed
    assert REDIRECT.identity not in kernel.read(OWNER) and not shown("filter show dev pp1 ingress")
    assert len(shown("filter show dev pp1 egress")) == 3


def test_a_redirection_to_a_link_that_went_is_read_as_one_to_nowhere_and_repaired() -> None:
    kernel = door()
    put(kernel, ALL)
    kernel.apply([Operation(TURN, None)])
    there = kernel.read(OWNER)[REDIRECT.identity]
    assert there == Redirect(link="pp1", to="")
    put(kernel, [TURN, TURNED])
    put(kernel, [REDIRECT], old=there)
    assert kernel.read(OWNER)[REDIRECT.identity] == REDIRECT


def test_a_redirection_needs_both_links() -> None:
    kernel = door()
    put(kernel, [PORT])
    (failure,) = kernel.apply([Operation(None, REDIRECT)]).failed
    assert "pp1i" in str(failure.error)
    assert "clsact" not in run("tc qdisc show")
