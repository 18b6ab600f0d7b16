"""ServiceCIDRs: one stays while a Service has an address of it that no other one contains, gives nothing new meanwhile, and says why."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.controllers.cluster import Cluster
from tests.unit.apiserver.controllers.test_services import ADDRESSES, RANGES, SERVICES, cluster, service
from tests.unit.apiserver.test_server import Object

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
MORE = f"{RANGES}/more"


def range_(name: str, *cidrs: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


async def with_more(*cidrs: str) -> Cluster:
    """A cluster with a second range, of which a Service has the address 10.97.0.9."""
    made = await cluster("10.96.0.0/16")
    await made("POST", RANGES, range_("more", *(cidrs or ("10.97.0.0/16",))))
    await made.settle()
    await made("POST", SERVICES, service("web", clusterIP="10.97.0.9"))
    await made.settle()
    return made


async def ready(made: Cluster, path: str = MORE) -> tuple[str, str]:
    """The condition Ready of a range, and its reason."""
    (condition,) = (await made("GET", path))["status"]["conditions"]
    return condition["status"], condition["reason"]


async def test_a_range_is_protected_and_ready() -> None:
    made = await with_more()
    assert (await made("GET", MORE))["metadata"]["finalizers"] == [FINALIZER]
    assert await ready(made) == ("True", "")
    await made("PATCH", MORE, {"metadata": {"finalizers": None}})
    await made.settle()
    assert (await made("GET", MORE))["metadata"]["finalizers"] == [FINALIZER]


async def test_one_that_nobody_uses_goes_at_once() -> None:
    made = await cluster("10.96.0.0/16")
    await made("POST", RANGES, range_("more", "10.97.0.0/16"))
    await made.settle()
    await made("DELETE", MORE)
    await made.settle()
    await made.refused("NotFound", "GET", MORE)


async def test_one_in_use_stays_until_its_last_address_is_free() -> None:
    made = await with_more()
    await made("DELETE", MORE)
    await made.settle()
    assert await ready(made) == ("False", "Terminating")
    before = (await made("GET", MORE))["metadata"]["resourceVersion"]
    await made.settle(60)
    assert (await made("GET", MORE))["metadata"]["resourceVersion"] == before
    await made("DELETE", f"{SERVICES}/web")
    await made.settle()
    await made.refused("NotFound", "GET", MORE)


async def test_another_one_that_contains_it_lets_it_go() -> None:
    made = await with_more()
    await made("DELETE", MORE)
    await made("POST", RANGES, range_("narrow", "10.97.1.0/24"))
    await made.settle()
    assert await ready(made) == ("False", "Terminating")
    await made("POST", RANGES, range_("wide", "10.97.0.0/24"))
    await made.settle()
    await made.refused("NotFound", "GET", MORE)
    assert (await made("GET", f"{SERVICES}/web"))["spec"]["clusterIP"] == "10.97.0.9"
    await made("DELETE", f"{RANGES}/wide")
    await made.settle()
    assert await ready(made, f"{RANGES}/wide") == ("False", "Terminating")


async def test_of_two_families_each_one_counts() -> None:
    made = await with_more("10.97.0.0/16", "fd00:97::/112")
    await made("DELETE", MORE)
    await made("POST", RANGES, range_("six", "fd00:97::/64"))
    await made.settle()
    assert await ready(made) == ("False", "Terminating")
    await made("DELETE", f"{SERVICES}/web")
    await made.settle()
    await made.refused("NotFound", "GET", MORE)


async def test_a_second_family_may_come_and_nothing_else_changes() -> None:
    made = await with_more()
    for cidrs in (["10.98.0.0/16"], ["fd00:97::/112", "10.97.0.0/16"], [], ["10.97.0.0/16", "10.98.0.0/16"]):
        await made.refused("Invalid", "PATCH", MORE, {"spec": {"cidrs": cidrs}})
    both = ["10.97.0.0/16", "fd00:97::/112"]
    assert (await made("PATCH", MORE, {"spec": {"cidrs": both}}))["spec"]["cidrs"] == both
    await made("POST", SERVICES, service("six", ipFamilies=["IPv6"], clusterIP="fd00:97::9"))
    await made.refused("Invalid", "PATCH", MORE, {"spec": {"cidrs": both[:1]}})


async def test_nothing_is_given_of_one_that_goes() -> None:
    made = await with_more()
    await made("DELETE", MORE)
    message = await made.refused("Invalid", "POST", SERVICES, service("late", clusterIP="10.97.0.10"))
    assert "is not in the valid range. The range of valid IPs is 10.96.0.0/16" in message
    await made("PATCH", f"{SERVICES}/web", {"metadata": {"labels": {"a": "b"}}})  # the address that it has stays
    await made("POST", SERVICES, service("kept", clusterIP="10.96.0.9"))
    await made("DELETE", f"{RANGES}/kubernetes")
    assert "its ServiceCIDRs are being deleted" in await made.refused("Forbidden", "POST", SERVICES, service("none"))


@pytest.mark.parametrize("labels", [{}, {"ipaddress.kubernetes.io/managed-by": "me"}])
async def test_an_address_that_a_user_keeps_holds_no_range(labels: Object) -> None:
    made = await cluster("10.96.0.0/16")
    await made("POST", RANGES, range_("more", "10.97.0.0/16"))
    parent = {"group": "example.org", "resource": "things", "name": "t"}
    await made("POST", ADDRESSES, {"metadata": {"name": "10.97.0.7", "labels": labels}, "spec": {"parentRef": parent}})
    await made.settle()
    await made("DELETE", MORE)
    await made.settle()
    await made.refused("NotFound", "GET", MORE)


async def test_what_somebody_writes_into_the_status_is_put_right() -> None:
    made = await with_more()
    await made("PATCH", f"{MORE}/status", {"status": {"conditions": []}})
    await made.settle()
    assert await ready(made) == ("True", "")
