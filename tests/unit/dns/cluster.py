"""The made-up cluster of `tools/dns_facts.py` in podplane's API server, and this name server over it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import dns.rdata
import dns.rdatatype

from podplane.dns import message as m
from podplane.dns.asking import Ask
from podplane.dns.config import Config, PodNames
from podplane.dns.message import Answer, Question, Record
from podplane.kubeapi.client import Client
from podplane.nameserver.answers import Answers
from podplane.nameserver.objects import Objects
from podplane.nameserver.resolver import Client as Asking
from podplane.nameserver.sources import Sources
from podplane.servers.dns_counts import Counts
from tests.unit.apiserver.test_server import Api
from tools.dns_facts import DOMAIN, NETWORKS, OUTSIDE, Cluster

ZONE = m.name_of("example.test")
SOA = "ns.example.test. hostmaster.example.test. 1 7200 1800 86400 5"
THERE_ALREADY = ("default", "kube-system")


async def filled(cluster: Cluster) -> Api:
    """An API server with the cluster's objects."""
    api = Api()
    await api.node("ghost")
    for one in cluster.namespaces:
        if one["metadata"]["name"] not in THERE_ALREADY:
            await api("POST", "/api/v1/namespaces", one)
    for path, several in (("/api/v1", cluster.services), ("/apis/discovery.k8s.io/v1", cluster.slices)):
        resource = "services" if several is cluster.services else "endpointslices"
        for one in several:
            await api("POST", f"{path}/namespaces/{one['metadata']['namespace']}/{resource}", one)
    for pod in cluster.pods:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
        await api("POST", path, {"metadata": pod["metadata"], "spec": pod["spec"]})
        await api("PATCH", f"{path}/{pod['metadata']['name']}/status", {"status": pod["status"]})
    return api


@dataclass(frozen=True)
class Outside:
    """The zone `example.test` as a source."""

    def ask(self, ask: Ask, ip: str, heard: Callable[[Answer], object]) -> Answer | None:
        """What it says to a datagram, which none of these tests sends."""
        raise NotImplementedError

    def answer(self, question: Question, client: Asking, query: m.Query) -> Answer | None:
        """Its records, and where an alias leads; None for a name outside of it."""
        if not m.is_under(question.name, ZONE):
            return None
        own = {type_: datas for (name, type_), datas in OUTSIDE.items() if m.name_of(name) == question.name}
        if "CNAME" in own and question.type != m.CNAME:
            records = _records(question.name, "CNAME", own["CNAME"])
            return Answer(records=records, follow=m.name_of(own["CNAME"][0]))
        asked = m.TYPES.get(question.type, "")
        if asked in own:
            return Answer(records=_records(question.name, asked, own[asked]))
        return Answer(rcode=m.NOERROR if own or question.name == ZONE else m.NXDOMAIN, authority=_records(ZONE, "SOA", (SOA,)))


def _records(name: m.Name, type_: str, datas: tuple[str, ...]) -> tuple[Record, ...]:
    number = dns.rdatatype.from_text(type_)
    return tuple(Record(name, number, 5, dns.rdata.from_text("IN", number, one).to_wire() or b"") for one in datas)


@contextlib.asynccontextmanager
async def served(api: Api, mode: PodNames) -> AsyncIterator[Callable[[bytes], bytes]]:
    """Takes messages, and gives the responses of a name server that has the objects of this API."""
    objects = Objects(Client(api.server.handle, "secret"))
    await objects.sync()
    networks = [one for several in NETWORKS.values() for one in several]
    sources = Sources(m.name_of(DOMAIN), objects.directory, networks, Outside())
    sources.use(sources.resolver(Config(pods=mode)))
    answers = Answers(sources, ["127.0.0.0/8"], Counts())

    def respond(message: bytes) -> bytes:
        response = answers.respond(message, "127.0.0.1", tcp=True)
        assert isinstance(response, bytes)
        return response

    yield respond
