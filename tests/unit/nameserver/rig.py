"""A name server's parts over an API in memory, without processes and sockets."""

from __future__ import annotations

from pathlib import Path

from podplane.apiserver import identity
from podplane.apiserver.server import utc_now
from podplane.dns.message import name_of
from podplane.kubeapi.authorization import Authorizer
from podplane.kubeapi.client import Client
from podplane.kubeapi.events import Recorder
from podplane.kubeapi.supervise import TaskReport
from podplane.model.name_server import UpstreamStatus
from podplane.nameserver.answers import Answers
from podplane.nameserver.configuration import Configuration
from podplane.nameserver.explanation import Explainer
from podplane.nameserver.forwarder import Forwarder
from podplane.nameserver.machine import Machine
from podplane.nameserver.metrics import Counted
from podplane.nameserver.objects import Objects
from podplane.nameserver.openers import HostOpener
from podplane.nameserver.query_log import QueryLog
from podplane.nameserver.randomness import Randomness
from podplane.nameserver.rates import Rates
from podplane.nameserver.reports import Reports
from podplane.nameserver.sources import Sources
from podplane.nameserver.state import State
from podplane.nameserver.upstream import Means
from podplane.servers.dns_counts import Counts
from podplane.servers.http import Call, Reply
from tests.unit.apiserver.test_server import Api


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """One node's reports; `api` has the objects."""

    def __init__(self, restarts: int = 0) -> None:
        self.api = Api()
        self.api.tokens.add("server", identity.component("name-server"))
        self.api.tokens.add("reader", identity.component("monitoring"))
        self.client = Client(self.api.server.call, "server")
        self.objects = Objects(self.client)
        self.clock = Clock()
        recorder = Recorder(self.client, "podplane-dns", utc_now)
        domain = name_of("cluster.local")
        self.configuration = Configuration(self.client, recorder, domain, ("10.96.0.10",), self.clock)
        self.sources = Sources(domain, self.objects.directory, ("10.96.0.0/16", "10.244.0.0/16"))
        self.counts = Counts()
        self.rates = Rates(self.counts, self.clock)
        self.upstreams: list[UpstreamStatus] = []
        self.tasks: dict[str, TaskReport] = {}
        self.query_log = QueryLog(self.clock, self.clock)
        self.answers = Answers(self.sources, ("10.244.0.0/16",), self.counts)
        explainer = Explainer(self.sources, self.answers.client, self.objects.directory, domain)
        self.forwarder = Forwarder(Means(HostOpener(), Randomness()), Machine(Path("/nonexistent")))
        counted = Counted(self.counts, self.forwarder, lambda: self.answers.kept)
        self.state = State(
            self.objects,
            self.configuration,
            ["cluster.local."],
            lambda: self.upstreams,
            counted.memory,
            lambda: self.tasks,
            lambda: self.client.contact,
            self.rates,
            restarts,
            self.clock,
        )
        authorizer = Authorizer(self.client, "node1")
        self.reports = Reports("node1", self.state, counted, explainer, self.query_log, authorizer)

    async def start(self) -> None:
        """Have the objects, and answer."""
        await self.objects.sync()
        await self.configuration.sync()
        self.state.ready()

    async def ask(self, path: str, bearer: str = "") -> Reply:
        """What is answered by HTTP."""
        return await self.reports.answer(Call(path, bearer))
