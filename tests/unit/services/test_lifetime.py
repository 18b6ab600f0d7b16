"""A node answers for load balancers' addresses only as long as its agent lives."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from podplane.kernel.errors import NotFound
from podplane.model.service import Service
from podplane.services import lifetime
from podplane.services.lifetime import Lifetime
from podplane.state.nft import Chain, Element, Set, Table
from podplane.state.value import fragment
from tests.plans import config
from tests.unit.agent.rig import DUAL, Rig, cluster, service_of

CONFIG = config(DUAL)
FOUR, SIX = ipaddress.ip_address("192.168.1.240"), ipaddress.ip_address("fd00:192:168:1::f0")
KEYS = {("arp", "podplane-announced", "alive", b"\x08\x06"), ("ip6", "podplane-announced", "alive", b"\x86\xdd")}


def test_addresses_of_several_services_share_one_table_a_family() -> None:
    one, other = (
        fragment(lifetime.plan((FOUR, SIX), "default/a", CONFIG)),
        fragment(lifetime.plan((FOUR,), "default/b", CONFIG)),
    )
    shared = one.keys() & other.keys()
    assert {type(one[i]) for i in shared if one[i] == other[i]} == {Table, Set, Chain}
    assert {i for i in shared if one[i] != other[i]} == {i for i in shared if isinstance(one[i], Element)}
    assert {value.family for value in one.values()} == {"arp", "ip6"}


def test_a_kernel_without_the_arp_family_limits_only_what_it_can() -> None:
    without = msgspec.structs.replace(CONFIG, arp_family=False)
    assert {value.family for value in lifetime.plan((FOUR, SIX), "default/a", without)} == {"ip6"}
    assert lifetime.lifetimes(DUAL, without) == [Lifetime("ip6", "podplane-announced", "alive", b"\x86\xdd")]
    assert {tuple(one) for one in lifetime.lifetimes(DUAL, CONFIG)} == KEYS


def load_balancer() -> Service:
    one = service_of("web", "10.96.0.1")
    status = msgspec.convert({"loadBalancer": {"ingress": [{"ip": str(FOUR)}, {"ip": str(SIX)}]}}, type(one.status))
    return msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, type="LoadBalancer"), status=status)


async def advertising() -> Rig:
    rig = Rig(("10.96.0.0/16",))
    await rig.start(*cluster(1, 2), load_balancer())
    return rig


async def test_the_agent_has_the_kernel_answer_for_as_long_as_it_is_told() -> None:
    rig = await advertising()
    rig.agent.answer_for(2.5)
    assert rig.host.objects.prolonged == {}, "nothing is advertised"
    rig.now = 0.5
    await rig.agent.advertise("default/web")
    assert rig.host.objects.prolonged == dict.fromkeys(KEYS, 2000), "before the neighbours are told"
    rig.now = 1.0
    rig.agent.answer_for(2.5)
    assert rig.host.objects.prolonged == dict.fromkeys(KEYS, 2500)
    await rig.agent.withdraw("default/web")
    rig.host.objects.prolonged.clear()
    rig.agent.answer_for(2.5)
    assert rig.host.objects.prolonged == {}
    assert not [v for v in rig.host.objects.nft.values() if getattr(v, "table", "") == "podplane-announced"]


async def test_a_restart_within_the_term_writes_nothing_and_what_is_flushed_is_made_again() -> None:
    rig = await advertising()
    rig.agent.answer_for(2.5)
    await rig.agent.advertise("default/web")
    await rig.settle()
    before = dict(rig.host.objects.nft)
    rig.new_agent()
    await rig.start(advertised=["default/web"])
    assert rig.written == 0 and rig.host.objects.nft == before
    for identity in [i for i, v in before.items() if getattr(v, "table", "") == "podplane-announced"]:
        del rig.host.objects.nft[identity]
    rig.host.objects.foreign_commits += 1
    rig.agent.answer_for(2.5)  # what the kernel does not have can't be prolonged: it is in the log, and tried again
    await rig.poll(10.0)
    await rig.settle()
    assert rig.host.objects.nft == before


def test_what_is_not_there_is_not_prolonged() -> None:
    with pytest.raises(NotFound):
        Rig().kernel.prolong("arp", "podplane-announced", "alive", b"\x08\x06", 1000)
