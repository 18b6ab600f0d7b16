"""What nodes denied, as `podplane policy denied` shows it: each packet once, whatever the nodes and however often they are asked."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from podplane.cli.policy.told import Merged, Told, more_text, why
from podplane.model.answers import DeniedFlow, DeniedFlows, Party

NOW = datetime.datetime(2026, 5, 1, 12, 0, 30, tzinfo=datetime.UTC)
CLIENT, WEB, DNS = (
    Party("10.0.1.2", "pod", "default/client"),
    Party("10.0.2.2", "pod", "shop/web"),
    Party("10.96.0.10", "dns", "the cluster's DNS"),
)
FLOW = DeniedFlow(1, "in", CLIENT, WEB, "tcp", 8080, ("shop/web", "shop/deny-all"), 3, 12.0, 2.5)


def changed(**fields: object) -> DeniedFlow:
    return msgspec.structs.replace(FLOW, **fields)


def told(flow: DeniedFlow, packets: int = 3) -> Told:
    return Told("node2", flow, packets, NOW - datetime.timedelta(seconds=12), NOW - datetime.timedelta(seconds=2.5))


def answer(change: int, *flows: DeniedFlow, told: int = 0, dropped: int = 0) -> DeniedFlows:
    return DeniedFlows("node2", change, told, dropped, 60.0, "", list(flows))


@pytest.mark.parametrize(
    ("flow", "text"),
    [
        (FLOW, "default/client → shop/web, TCP 8080: ingress: default deny by shop/web, shop/deny-all (3 packets)"),
        (
            changed(reason="out", protocol="icmp", port=0),
            "default/client → shop/web, ICMP: egress: default deny by shop/web, shop/deny-all (3 packets)",
        ),
        (
            changed(protocol="icmpv6", port=0, policies=()),
            "default/client → shop/web, ICMPv6: ingress: no policy allowed it (3 packets)",
        ),
        (
            changed(protocol="47", port=0, reason="gate"),
            "default/client → shop/web, protocol 47: no pod has this address, or another one, or its policies are not in place yet"
            " (3 packets)",
        ),
        (
            changed(source=Party("1.2.3.4"), destination=DNS, reason="foreign", protocol="udp", port=53),
            "1.2.3.4 → the cluster's DNS, UDP 53: not an address of a pod of this node (3 packets)",
        ),
        (
            changed(source=Party("", "node", "node1"), destination=Party("", "service", "a/b"), protocol="udp", port=0),
            "node node1 → Service a/b, udp: ingress: default deny by shop/web, shop/deny-all (3 packets)",
        ),
    ],
)
def test_lines(flow: DeniedFlow, text: str) -> None:
    assert told(flow).text() == f"12:00:27  {text}"


def test_one_packet_is_not_counted_and_many_policies_are_cut() -> None:
    assert told(FLOW, 1).text().endswith("shop/deny-all")
    assert why(changed(policies=tuple(f"a/p{n}" for n in range(9)))).endswith("a/p5 and 3 more")
    assert "\x1b" not in told(changed(source=Party("", "pod", "a/\x1b[31m"))).text()


def test_the_document_says_all_of_it() -> None:
    assert told(FLOW).document() == {
        "time": "2026-05-01T12:00:27.500+00:00",
        "firstTime": "2026-05-01T12:00:18.000+00:00",
        "node": "node2",
        "from": {"address": "10.0.1.2", "pod": "default/client"},
        "to": {"address": "10.0.2.2", "pod": "shop/web"},
        "protocol": "tcp",
        "port": 8080,
        "direction": "ingress",
        "by": "ingress: default deny by shop/web, shop/deny-all",
        "policies": ["shop/web", "shop/deny-all"],
        "packets": 3,
        "check": False,
    }
    assert told(changed(in_check=True)).document()["check"] is True
    assert told(changed(port=0, destination=Party("1.2.3.4"), reason="gate")).document()["direction"] is None


def test_a_namespace_is_that_of_either_end() -> None:
    assert told(FLOW).is_about("shop") and told(FLOW).is_about("default") and not told(FLOW).is_about("sho")
    assert not told(changed(source=Party("", "node", "shop"), destination=DNS)).is_about("shop")


def test_each_packet_is_shown_once() -> None:
    merged = Merged(["node1", "node2"])
    other = changed(number=2, port=80, packets=1, last_age=9.0)
    first, more = merged.take({"node2": answer(4, FLOW, other, told=4, dropped=10)}, NOW)
    assert [(one.flow.port, one.packets) for one in first] == [(80, 1), (8080, 3)] and more == 6
    assert merged.after == {"node1": 0, "node2": 4}
    again, more = merged.take({"node2": answer(6, changed(packets=5), told=6, dropped=15), "node1": answer(0)}, NOW)
    assert [(one.flow.port, one.packets) for one in again] == [(8080, 2)] and more == 3
    assert merged.take({"node2": answer(6, told=6, dropped=15)}, NOW) == ([], 0)


def test_an_agent_that_began_anew_counts_anew() -> None:
    merged = Merged(["node2"])
    merged.take({"node2": answer(40, FLOW, told=40, dropped=100)}, NOW)
    found, more = merged.take({"node2": answer(2, changed(packets=2), told=2, dropped=3)}, NOW)
    assert [one.packets for one in found] == [2] and more == 1 and merged.after == {"node2": 2}


def test_what_is_not_told_is_said() -> None:
    assert more_text(1234, "") == "… and 1,234 more packets (a node tells apart 100 a second for each direction)"
    assert more_text(1, "shop").startswith("… and 1 more packet, of any namespace")
