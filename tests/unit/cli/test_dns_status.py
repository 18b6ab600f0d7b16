"""What `podplane dns status` writes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from podplane.cli.dns import show_status, statuses
from podplane.model.name_server import NameServerStatus

Object = dict[str, Any]


def cache(resource: str, objects: int) -> Object:
    return {"resource": resource, "objects": objects, "is_synced": True, "failures": {}}


def server(zone: str = ".", **fields: Any) -> Object:
    known = {"is_up": True, "is_loop": False, "age": 60.0, "error": "", "round_trip": 0.0123, "asked": 20, "failed": 1}
    return {"zone": zone, "server": "192.0.2.53", **known, **fields}


def status(node: str = "node1", **fields: Any) -> Object:
    """A server that is well, but for these fields."""
    found = {
        "node": node,
        "pid": 6,
        "age": 125.0,
        "restarts": 0,
        "missing": [],
        "answers": 12_000,
        "answers_a_second": 12.34,
        "config": {"config_map": "kube-system/podplane-dns", "exists": True, "error": "", "age": 120.0, "instead": ""},
        "zones": ["cluster.local."],
        "upstreams": [server()],
        "memory": {
            "responses": 3,
            "response_bytes": 2048,
            "answers": 1,
            "answer_bytes": 3 << 20,
            "looked_for": 8,
            "found": 6,
            "stale": 2,
        },
        "tasks": [{"name": "watch of services", "is_running": True, "restarts": 0, "last_error": ""}],
        "caches": [cache("services", 1200), cache("endpointslices.discovery.k8s.io", 1), cache("namespaces", 4)],
        "heard_age": 3.0,
        "api": {"is_reached": True, "age": 3.0, "error": ""},
        **fields,
    }
    msgspec.convert(found, NameServerStatus)
    return found


def test_servers_that_are_well_have_a_row_each() -> None:
    assert (
        show_status.overview([status(), status("node2", restarts=2)])
        == """\
NODE    STATE     SINCE       RESTARTS   SERVICES   UPSTREAMS   API HEARD   ANSWERS/S
node1   answers   2 min 5 s   0          1,200      1 of 1      3 s ago     12.3
node2   answers   2 min 5 s   2          1,200      1 of 1      3 s ago     12.3"""
    )
    assert show_status.summary([status(), status("node2")]) == ""


def test_all_about_one() -> None:
    corp = server("corp.example.", is_up=False, error="timed out", age=12.0)
    new = server("new.example.", asked=0, failed=0, round_trip=None)
    assert (
        show_status.detail(status(restarts=1, upstreams=[server(), corp, new]))
        == """\
The name server of node1 answers, for 2 min 5 s, after 1 restart.
  process     pid 6 in the lab
  zones       cluster.local.
  answers     12,000, 12.3 a second
  objects     1,200 Services, 1 EndpointSlice, 4 namespaces
  kept        3 responses (2 KiB); 1 answer of other servers (3.0 MiB, 75% of 8 found, 2 too old)
  API         heard 3 s ago
  config      ConfigMap kube-system/podplane-dns, for 2 min
  server      192.0.2.53 for all other names: answers in 12.3 ms; 20 questions, 1 failed
  server      192.0.2.53 for corp.example.: no answer for 12 s: timed out; 20 questions, 1 failed
  server      192.0.2.53 for new.example.: not asked yet

node1: server 192.0.2.53 for corp.example. does not answer: timed out"""
    )


WRONG = {
    "config_map": "kube-system/podplane-dns",
    "exists": True,
    "error": "ttl: no number",
    "age": 1.0,
    "instead": "the last good configuration goes on",
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"missing": ["services"]}, "it does not answer questions yet: it waits for services"),
        (
            {"config": WRONG},
            "ConfigMap kube-system/podplane-dns: ttl: no number; the last good configuration goes on",
        ),
        (
            {"api": {"is_reached": False, "age": 1.0, "error": "no route"}},
            "it does not reach the API, and answers with what it knew before: no route",
        ),
        ({"heard_age": 361.0}, "it has heard nothing of the API for more than 6 min: its answers may be old"),
        ({"upstreams": []}, "it has no other server to ask: names outside of the cluster have no answer"),
        (
            {"upstreams": [server(is_up=False, is_loop=True, error="127.0.0.53 leads back here")]},
            "server 192.0.2.53 for all other names is a loop, and not asked: 127.0.0.53 leads back here",
        ),
        (
            {"tasks": [{"name": "watch of services", "is_running": False, "restarts": 3, "last_error": "OSError()"}]},
            "the watch of services waits to be started again: OSError()",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_once_with_its_nodes(fields: Object, said: str) -> None:
    found = [status(**fields), status("node2", **fields), status("node3")]
    assert show_status.troubles(found) == {said: ["node1", "node2"]}
    assert show_status.overview(found).splitlines()[-1] == f"node1, node2: {said}"
    assert show_status.summary(found) == ("" if "upstreams" in fields else f"node1, node2: {said}")


def test_a_node_that_does_not_answer() -> None:
    silent = {"node": "node2", "error": "no answer within 3 s\x1b"}
    assert show_status.overview([status(), silent]).splitlines()[2:] == [
        "node2   no answer   -           -          -          -           -           -",
        "",
        "node2: no answer within 3 s\\x1b",
    ]
    assert show_status.detail(silent) == "The name server of node2 does not answer: no answer within 3 s\\x1b"
    assert show_status.summary([silent, *(status(name, missing=[name]) for name in "ab")]).endswith("; and 1 more")


def test_the_defaults_count_without_a_config_map() -> None:
    config = {"config_map": "kube-system/podplane-dns", "exists": False, "error": "", "age": 1.0}
    assert "  config      the defaults: there is no ConfigMap kube-system/podplane-dns\n" in show_status.detail(
        status(config=config)
    )


def looks(*found: Object) -> tuple[list[Object], int]:
    """What is shown when looks find this, one after another, and how often it looked."""
    left = list(found)
    shown = statuses.once_started(lambda: [status("node2"), left.pop(0)], sleep=lambda seconds: None)
    return shown[1:], len(found) - len(left)


def test_a_server_that_has_just_begun_is_waited_for() -> None:
    begins, is_well = status(missing=["sockets"], age=0.4), status(age=0.5)
    assert looks(begins, begins, is_well, begins) == ([is_well], 3)


@pytest.mark.parametrize(
    "one",
    [
        status(),
        status(missing=["services"], age=3.5),
        status(missing=["sockets"], age=0.4, restarts=1),
        {"node": "node1", "error": "no answer within 3 s"},
    ],
)
def test_one_that_is_well_or_not_about_to_start_is_shown_at_once(one: Object) -> None:
    assert looks(one, status()) == ([one], 1)


def test_one_that_does_not_get_on_is_shown_in_the_end() -> None:
    begins = status(missing=["services"], age=0.4)
    shown, count = looks(*[begins] * 1000)
    assert shown == [begins] and 1 < count < 1000
