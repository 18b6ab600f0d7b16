"""Who answers for a load balancer's address: exactly one node, soon another one when that goes silent, and nobody without a Lease."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.agent.election import DURATION_SECONDS, LEASES, RENEW_SECONDS, Election
from podplane.apiserver import identity
from podplane.cluster.client import Client
from podplane.cluster.errors import ApiError
from podplane.cluster.events import Recorder
from podplane.cluster.messages import Answer, Request
from podplane.model.lease import Lease
from podplane.model.objects import Metadata, Node, NodeSpec
from podplane.model.service import (
    SERVICE_NAME,
    Endpoint,
    EndpointSlice,
    Ingress,
    LoadBalancerStatus,
    Service,
    ServiceSpec,
    ServiceStatus,
)
from podplane.model.view import View
from podplane.services.announce import EXCLUDED, preference
from tests.unit.apiserver.test_server import Api

PATH = "default/web"
NAMES = ("node1", "node2", "node3")


class Speaker:
    """An agent that only knows for whom it answers."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.answers: set[str] = set()
        self.said = 0

    async def announce(self, path: str) -> None:
        self.answers.add(path)
        self.said += 1

    async def withdraw(self, path: str) -> None:
        self.answers.discard(path)


class Cluster:
    """Nodes, a load balancer, and an API that some nodes may not reach."""

    def __init__(self, **spec: Any) -> None:
        self.api = Api()
        self.seconds = 100.0
        self.cut_off: set[str] = set()
        self.speakers: dict[str, Speaker] = {}
        self.elections: dict[str, Election] = {}
        self.spec = {"type": "LoadBalancer", **spec}
        self.leases: dict[str, Lease] = {}

    async def begin(self) -> Cluster:
        manifest = {"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
        made = await self.api("POST", "/api/v1/namespaces/default/services", manifest)
        status = ServiceStatus(LoadBalancerStatus((Ingress(ip="192.0.2.1"),)))
        metadata = Metadata(name="web", namespace="default", uid=made["metadata"]["uid"])
        self.service: Service = Service(metadata, ServiceSpec(**self.spec), status)
        for name in NAMES:
            self.join(name)
        return self

    def join(self, name: str) -> None:
        """A node's agent starts, or starts again."""
        node = Node(Metadata(name=name), NodeSpec(pod_cidrs=("10.244.0.0/24",)))
        self.speakers[name] = Speaker(View(name, {name: node}, services={PATH: self.service}))
        self.api.tokens.add(name, identity.node(name))

        async def handler(request: Request) -> Answer:
            if name in self.cut_off:
                raise ApiError(503, "ServiceUnavailable", "the API can't be reached")
            return await self.api.server.call(request)

        client = Client(handler, name)
        recorder = Recorder(client, "podplane", self.now, name)
        self.elections[name] = Election(self.speakers[name], client, recorder, self.now, lambda: self.seconds)
        self.elections[name].changed(PATH, self.service)
        for lease in self.leases.values():
            self.elections[name].lease_changed(None, lease)

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.seconds, datetime.UTC)

    async def tell(self) -> None:
        """What the watch of Leases brings to those who reach the API."""
        found = msgspec.json.decode(await Client(self.api.server.call, "secret").list(LEASES))["items"]
        now = {lease.metadata.path: lease for lease in (msgspec.convert(one, Lease) for one in found)}
        for name in set(self.elections) - self.cut_off:
            known = self.elections[name]._leases
            for lease in now.values():
                if known.get(PATH) != lease:
                    self.elections[name].lease_changed(known.get(PATH), lease)
            if not now and PATH in known:
                self.elections[name].lease_changed(known[PATH], None)
        self.leases = now

    async def turn(self, *names: str) -> None:
        """These take their turn, one after the other."""
        for name in names:
            await self.elections[name].turn()
            await self.tell()

    async def pass_(self, seconds: float, *names: str) -> None:
        """Time passes, and these take their turns."""
        for _ in range(round(seconds / 0.5)):
            self.seconds += 0.5
            await self.turn(*names)

    @property
    def answering(self) -> list[str]:
        return [name for name, speaker in self.speakers.items() if speaker.answers]

    @property
    def holder(self) -> str:
        return next((lease.holder for lease in self.leases.values()), "")


async def test_one_of_all_has_it_and_keeps_it() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(1, *NAMES)
    (first,) = cluster.answering
    assert cluster.holder == first
    await cluster.pass_(30, *NAMES)
    assert cluster.answering == [first]
    assert cluster.speakers[first].said == 3, "the neighbours are told at once, and twice more"


async def test_services_spread_over_nodes() -> None:
    chosen = [min(NAMES, key=lambda node: preference(f"default/s{n}", node)) for n in range(300)]
    assert all(70 <= chosen.count(name) <= 130 for name in NAMES)


async def test_when_it_goes_silent_another_one_has_it_after_the_leases_duration() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(1, *NAMES)
    (first,) = cluster.answering
    others = [name for name in NAMES if name != first]
    await cluster.pass_(DURATION_SECONDS - 0.5, *others)
    assert cluster.holder == first
    await cluster.pass_(1.5, *others)
    assert cluster.holder in others
    await cluster.turn(first)
    assert cluster.answering == [cluster.holder], "the former one notices"


async def test_who_cannot_reach_the_api_is_silent_before_somebody_else_answers() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(1, *NAMES)
    (first,) = cluster.answering
    cluster.cut_off = {first}
    for _ in range(20):
        await cluster.pass_(0.5, first, *(name for name in NAMES if name != first))
        assert len(cluster.answering) <= 1
    assert cluster.answering and cluster.answering != [first]
    cluster.cut_off = set()
    await cluster.pass_(3, *NAMES)
    assert len(cluster.answering) == 1


async def test_who_may_not_have_it_any_more_gives_it_back_at_once() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(1, *NAMES)
    (first,) = cluster.answering
    view = cluster.speakers[first].view
    labelled = msgspec.structs.replace(view.nodes[first].metadata, labels={EXCLUDED: ""})
    view.nodes = {first: msgspec.structs.replace(view.nodes[first], metadata=labelled)}
    await cluster.turn(first)
    assert cluster.holder == ""
    await cluster.turn(*NAMES)
    await cluster.pass_(0.5, *NAMES)
    assert cluster.answering == [cluster.holder] != [first]


async def test_with_policy_local_only_a_node_with_a_ready_endpoint_has_it() -> None:
    cluster = await Cluster(external_traffic_policy="Local").begin()
    await cluster.pass_(1, *NAMES)
    assert cluster.answering == []
    for home in ("node2", "node3"):
        own = EndpointSlice(Metadata(labels={SERVICE_NAME: "web"}), endpoints=(Endpoint(("10.0.0.1",), node_name=home),))
        for name, speaker in cluster.speakers.items():
            speaker.view.slices = {PATH: {"web-1": own}}
            cluster.elections[name].changed(PATH, None)
        await cluster.pass_(1, *NAMES)
        assert cluster.answering == [home]


async def test_an_agent_that_starts_again_goes_on() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(1, *NAMES)
    (first,) = cluster.answering
    cluster.join(first)
    assert cluster.elections[first].held(cluster.leases.values()) == [PATH]
    await cluster.pass_(0.5, *NAMES)
    assert cluster.answering == [first] == [cluster.holder]


async def test_when_the_service_goes_nobody_answers() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(1, *NAMES)
    await cluster.api("DELETE", "/api/v1/namespaces/default/services/web")
    for speaker in cluster.speakers.values():
        speaker.view.services = {}
    await cluster.tell()
    assert not cluster.leases, "the Lease goes with its Service"
    await cluster.turn(*NAMES)
    assert cluster.answering == []
    assert [await election.turn() for election in cluster.elections.values()] == [None] * 3


steps = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(("turn", "cut", "heal", "restart"))), max_size=25)


@settings(max_examples=40, deadline=None)
@given(steps)
async def test_whatever_happens_in_the_end_one_answers_and_has_the_lease(steps: list[tuple[str, str]]) -> None:
    cluster = await Cluster().begin()
    for name, what in steps:
        match what:
            case "turn":
                await cluster.turn(name)
            case "cut":
                cluster.cut_off.add(name)
            case "heal":
                cluster.cut_off.discard(name)
            case "restart":
                cluster.join(name)
        cluster.seconds += 0.4
    cluster.cut_off = set()
    await cluster.pass_(2 * DURATION_SECONDS + RENEW_SECONDS, *NAMES)
    assert cluster.answering == [cluster.holder]


async def test_when_its_addresses_change_the_neighbours_are_told_of_the_new_ones() -> None:
    cluster = await Cluster().begin()
    await cluster.pass_(5, *NAMES)
    (first,) = cluster.answering
    before = cluster.speakers[first].said
    changed = msgspec.structs.replace(cluster.service, status=ServiceStatus(LoadBalancerStatus((Ingress(ip="192.0.2.9"),))))
    for speaker in cluster.speakers.values():
        speaker.view.services = {PATH: changed}
    await cluster.pass_(5, *NAMES)
    assert cluster.answering == [first]
    assert cluster.speakers[first].said == before + 3


async def test_what_it_wrote_itself_counts_before_the_watch_tells_it() -> None:
    cluster = await Cluster().begin()
    only = cluster.elections["node2"]
    for _ in range(6):
        cluster.seconds += 0.3
        await only.turn()
        assert len(cluster.answering) <= 1
    assert cluster.answering == ["node2"]
    assert cluster.speakers["node2"].said <= 3, "it never fell silent in between"
    stale = next(iter(only._leases.values()))
    await cluster.pass_(2, "node2")
    only.lease_changed(None, stale)
    assert await only.turn() is not None
    assert cluster.answering == ["node2"] and only._leases[PATH] != stale
