"""Services with session affinity on a real kernel: who keeps an endpoint, and for how long."""

from __future__ import annotations

import time

import pytest

from podplane.model.service import ClientIPConfig, Endpoint, EndpointSlice, SessionAffinityConfig
from podplane.services.numbers import Numbers
from tests.kernel.services import LOCAL, OWNER, STICKY, VIPS, Rig, service, slices

pytestmark = pytest.mark.kernel


def test_a_client_keeps_its_endpoint_until_that_goes() -> None:
    rig = Rig()
    addresses = [f"127.0.0.{n}" for n in range(1, 6)]
    rig.serve(*addresses)
    rig.want((service(**STICKY), slices(*addresses)))
    first = rig.reached(VIPS[0])
    assert {rig.reached(VIPS[0]) for _ in range(30)} == {first}
    for others in range(4):  # the others go, and come back
        staying = [a for a in addresses if a == first or addresses.index(a) >= others]
        rig.want((service(**STICKY), slices(*staying)))
        assert rig.reached(VIPS[0]) == first
    rig.want((service(**STICKY), slices(*(a for a in addresses if a != first))))
    second = rig.reached(VIPS[0])
    assert second != first
    rig.want((service(**STICKY), slices(*addresses)))
    assert {rig.reached(VIPS[0]) for _ in range(30)} == {second}


def test_a_client_of_an_endpoint_that_went_is_led_to_no_other_service_by_the_next_agent() -> None:
    """Its memory has the greatest number, which nothing in the tables names any more."""
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2", "127.0.0.3")
    stays, web, other = (service(name, (f"10.96.0.1{n}",), **STICKY) for n, name in enumerate(("stays", "web", "other")))
    rig.want((stays, slices("127.0.0.1")), (web, slices("127.0.0.2")))
    assert rig.reached("10.96.0.11") == "127.0.0.2"
    rig.want((stays, slices("127.0.0.1")), (web, slices()))
    rig.numbers = Numbers()
    rig.numbers.recover(rig.kernel.read(OWNER).values())
    rig.want((stays, slices("127.0.0.1")), (other, slices("127.0.0.3")), (web, slices("127.0.0.2")))
    assert rig.reached("10.96.0.11") == "127.0.0.2" and rig.reached("10.96.0.12") == "127.0.0.3"


def test_a_client_leaves_its_endpoint_when_a_policy_rules_that_out() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2")
    (slice_, _) = slices("127.0.0.1", "127.0.0.2")
    placed = tuple(Endpoint(addresses=e.addresses, node_name=f"node{n}") for n, e in enumerate(slice_.endpoints or (), 1))
    own = [EndpointSlice(endpoints=placed, ports=slice_.ports)]
    for _ in range(20):
        rig.want((service(**STICKY), own))
        rig.reached(VIPS[0])
        rig.want((service(**STICKY, internal_traffic_policy="Local"), own))
        assert rig.reached(VIPS[0]) == "127.0.0.1"
        rig.want()


def test_what_is_remembered_of_a_client_is_forgotten_in_time() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2", "127.0.0.3")
    config = SessionAffinityConfig(ClientIPConfig(timeout_seconds=1))
    rig.want((service(session_affinity="ClientIP", session_affinity_config=config), slices(*rig.servers)))
    first = rig.reached(VIPS[0])
    for _ in range(15):  # it is chosen anew each time, so by chance never another in 1 of 14 million runs
        assert rig.reached(VIPS[0]) == first
        time.sleep(1.3)
        before, first = first, rig.reached(VIPS[0])
        if before != first:
            return
    raise AssertionError("it was never forgotten")


def test_with_affinity_and_policy_local_who_is_inside_keeps_one_of_all_endpoints() -> None:
    rig = Rig()
    rig.serve("127.0.0.1", "127.0.0.2")
    (slice_, _) = slices("127.0.0.1", "127.0.0.2")
    placed = tuple(Endpoint(addresses=e.addresses, node_name=f"node{n}") for n, e in enumerate(slice_.endpoints or (), 1))
    wanted_ = (service(**STICKY, **LOCAL), [EndpointSlice(endpoints=placed, ports=slice_.ports)])
    seen = set()
    for _ in range(30):
        rig.want()  # its memory goes along
        rig.want(wanted_)
        first = rig.reached("127.0.0.9", 30080)
        assert {rig.reached("127.0.0.9", 30080) for _ in range(3)} == {first}
        seen.add(first)
    assert seen == {"127.0.0.1", "127.0.0.2"}
