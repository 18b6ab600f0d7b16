"""Objects: what an answer says that it depends on is what is told when it is not true any more."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from podplane.dns.cluster import INSECURE, VERIFIED
from podplane.dns.message import REFUSED, Answer
from podplane.kubeapi.client import Client
from podplane.kubeapi.messages import Response
from podplane.nameserver.objects import Objects
from tests.unit.apiserver.test_server import Api
from tests.unit.dns.world import World, endpoint, port
from tests.unit.kubeapi.test_informer import Script
from tests.unit.virtual_time import virtual

NAMES = ("a", "b")
IPS = ("10.96.0.1", "10.96.0.2", "10.244.0.1", "10.244.0.2", "fd00:10:244::1")
PORTS = ((), ("http:80",), ("http:81", "dns:53/UDP"), ("80",))
HOSTS = ("", "h", "10-244-0-1")
NAMESPACES = st.sampled_from(NAMES)
PATHS = st.builds("{}/{}".format, NAMESPACES, st.sampled_from(NAMES))
ENDPOINTS = st.builds(endpoint, st.sampled_from(IPS), hostname=st.sampled_from(HOSTS), ready=st.booleans())
ADDRESSED = {"clusterIP": st.sampled_from((*IPS[:2], "None")), "publishNotReadyAddresses": st.booleans()}
TARGETS = st.sampled_from(("a.b.svc.cluster.local", "x.example", "a..b"))
SPECS = st.one_of(
    st.fixed_dictionaries(ADDRESSED),
    st.builds(lambda name: {"type": "ExternalName", "externalName": name}, TARGETS),
)
Change = tuple[Any, ...]
CHANGES = st.one_of(
    st.tuples(st.just("service"), PATHS, st.none() | SPECS, st.sampled_from(PORTS)),
    st.tuples(
        st.just("endpointslice"),
        PATHS,
        st.none() | st.lists(ENDPOINTS, max_size=3),
        st.sampled_from(PORTS),
        st.sampled_from(NAMES),
    ),
    st.tuples(st.just("namespace"), NAMESPACES, st.sampled_from((None, {}))),
    st.tuples(
        st.just("pod"),
        PATHS,
        st.none() | st.lists(st.sampled_from(IPS), max_size=2),
        st.sampled_from(("Running", "Failed")),
    ),
)


def make(world: World, change: Change) -> None:
    """Change one object; None in place of what it has removes it."""
    kind, path, content, *more = change
    if content is None:
        world.remove(kind, path)
    elif kind == "service":
        world.put(kind, path, spec={**content, "ports": list(map(port, more[0]))})
    elif kind == "endpointslice":
        world.slice(path, more[1], *content, ports=more[0])
    elif kind == "pod":
        world.put(kind, path, status={"phase": more[0], "podIPs": [{"ip": ip} for ip in content]})
    else:
        world.put(kind, path, **content)


BEGINNING: list[Change] = [
    ("namespace", "a", {}),
    ("endpointslice", "a/a", [endpoint(IPS[2], hostname="h"), endpoint(IPS[3], ready=False)], PORTS[1], "a"),
    ("service", "a/a", {"clusterIP": "None"}, PORTS[1]),
    ("service", "b/a", {"type": "ExternalName", "externalName": "a.a.svc.cluster.local"}, ()),
]
LABELS = ("", "h.", "10-244-0-1.", "_tcp.", "_http._tcp.", "_dns._udp.")
QUESTIONS = [
    *(
        (f"{label}{name}.{namespace}.svc", kind)
        for label in LABELS
        for name in NAMES
        for namespace in NAMES
        for kind in ("A", "SRV")
    ),
    *((f"{name}.{part}", "A") for name in ("a", "10-244-0-1.a", "fd00-10-244--1.a", "10-96-0-1.b") for part in ("svc", "pod")),
    ("fd00-10-244--1.a.pod", "AAAA"),
    *((f"{'.'.join(reversed(ip.split('.')))}.in-addr.arpa.", kind) for ip in IPS[:4] for kind in ("PTR", "A")),
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa.", "PTR"),
    ("0.96.10.in-addr.arpa.", "PTR"),
    *((name, kind) for name in ("", "svc", "pod", "ns.dns", "dns-version", "foo") for kind in ("A", "NS", "SOA", "TXT")),
]


def without_serial(answer: Answer) -> Answer:
    """But for the serial number of a denial: nobody acts on it."""
    return replace(answer, authority=tuple(one._replace(data=b"") for one in answer.authority))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from((INSECURE, VERIFIED)), st.lists(CHANGES, max_size=8))
def test_an_answer_is_true_until_something_that_it_depends_on_changes(pods: str, changes: list[Change]) -> None:
    world = World(pods=pods)
    kept: dict[tuple[str, str], Answer] = {}
    for change in (*BEGINNING, *changes):
        world.told.clear()
        make(world, change)
        told = set(world.told)
        for question in QUESTIONS:
            _, fresh = world.resolve(*question)
            known = kept.get(question)
            if known is not None and known.depends and told.isdisjoint(known.depends):
                assert without_serial(fresh) == without_serial(known), (question, change)
            else:
                assert fresh.depends or fresh.rcode == REFUSED, question
                kept[question] = fresh


def test_a_change_is_told_to_those_that_it_concerns() -> None:
    world = World()
    world.service("a/web", "10.96.0.1")
    world.slice("a/web-1", "web", endpoint("10.244.0.1", hostname="h"))
    assert set(world.told) == {"serial", "service/a/web", "ip/10.96.0.1", "ip/10.244.0.1"}
    world.told.clear()
    world.slice("a/web-1", "web", endpoint("10.244.0.2"))
    assert set(world.told) == {"serial", "service/a/web", "ip/10.244.0.1", "ip/10.244.0.2"}
    world.told.clear()
    world.put("pod", "a/web-1", status={"podIP": "10.244.0.1"})
    assert set(world.told) == {"serial", "pod-ip/10.244.0.1"}
    world.told.clear()
    world.put("namespace", "a")
    world.put("namespace", "a", metadata={"labels": {"x": "y"}})
    assert world.told.count("namespace/a") == 1


def test_pods_by_address_are_those_that_may_ask() -> None:
    world = World()
    by_ip = world.objects.directory.pods_by_ip
    world.put("pod", "a/one", status={"podIPs": [{"ip": "10.244.0.1"}, {"ip": "fd00::0:1"}]})
    world.put("pod", "a/ended", status={"phase": "Succeeded", "podIP": "10.244.0.1"})
    assert [*(by_ip.get("10.244.0.1") or ())] == [*(by_ip.get("fd00::1") or ())] == ["a/one"]
    world.remove("pod", "a/one")
    assert not by_ip.get("10.244.0.1")


async def test_objects_are_listed_and_ended_pods_are_not() -> None:
    api = Api()
    await api.node("ghost")
    for name, phase in (("one", "Running"), ("two", "Failed")):
        pod = {
            "metadata": {"name": name},
            "spec": {"nodeName": "ghost", "containers": [{"name": "c", "image": "podplane/echo"}]},
        }
        await api("POST", "/api/v1/namespaces/default/pods", pod)
        await api(
            "PATCH",
            f"/api/v1/namespaces/default/pods/{name}/status",
            {"status": {"phase": phase, "podIPs": [{"ip": "10.244.0.1"}]}},
        )
    objects = Objects(Client(api.server.handle, "secret"))
    await objects.sync()
    assert all(one.is_synced for one in objects.informers)
    assert [*(objects.directory.pods_by_ip.get("10.244.0.1") or ())] == ["default/one"]
    assert "default" in objects.directory.namespaces


@virtual
async def test_names_stay_while_the_api_is_away() -> None:
    """For ten minutes; a known name is never denied because the API can't be asked (coredns/coredns#5642)."""
    service = {"metadata": {"name": "web", "namespace": "a", "resourceVersion": "7"}, "spec": {"clusterIP": "10.96.0.1"}}
    script = Script([[service]], [Response(503, b"{}")] * 1000)
    objects = Objects(Client(script, "t"))
    services = objects.informers[0]
    await services.sync()
    task = asyncio.ensure_future(services.run())
    await asyncio.sleep(600)
    assert services.failures["watch ApiError"] > 10
    assert [*objects.directory.services] == ["a/web"] and services.is_synced
    task.cancel()
