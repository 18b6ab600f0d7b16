"""No pod gets what another namespace's search path leads to, whatever is kept."""

from __future__ import annotations

from functools import partial

import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.dns.directory import Directory
from podplane.dns.message import name_of
from podplane.dns.resolv_conf import NodeDns
from podplane.model.dns import Identity, NamedPod, NamedService, NamedServiceSpec
from podplane.nameserver.answers import Answers
from podplane.nameserver.clients import Clients
from podplane.nameserver.sources import Sources
from podplane.servers.dns_counts import Counts

WEB, OTHER, TWIN, NODE = "10.244.1.2", "10.244.1.3", "10.244.2.2", "192.168.1.10"


class Rig:
    """A name server for pods of the namespaces `shop` and `db`; `say` changes what there is."""

    def __init__(self) -> None:
        self.services: dict[str, NamedService] = {}
        self.pods: dict[str, dict[str, NamedPod]] = {}
        directory = Directory(namespaces={"shop", "db"}, services=self.services, pods_by_ip=self.pods)
        domain = name_of("cluster.local")
        self.sources = Sources(domain, directory, ["10.0.0.0/8"])
        clients = Clients(directory, NodeDns(("10.96.0.10",)))
        self.answers = Answers(self.sources, ["10.0.0.0/8", "192.168.1.0/24"], Counts(), identify=clients.identify)
        for ip, path in ((WEB, "shop/web"), (OTHER, "db/web"), (TWIN, "shop/twin")):
            self.pod(ip, path)
        self.service("db/sql", "10.96.0.8")

    def pod(self, ip: str, path: str) -> None:
        """The pod that has this address from now on."""
        namespace, name = path.split("/")
        self.pods[ip] = {path: NamedPod(Identity(name, namespace), (ip,))}
        self.answers.forget_client(ip)

    def service(self, path: str, ip: str) -> None:
        """A Service appears."""
        namespace, name = path.split("/")
        self.services[path] = NamedService(Identity(name, namespace), NamedServiceSpec(cluster_ip=ip))
        self.answers.changed(f"service/{path}")

    def gone(self, path: str) -> None:
        """A Service goes."""
        del self.services[path]
        self.answers.changed(f"service/{path}")

    def ask(self, ip: str, name: str) -> str:
        """The last record of the answer, or the response code."""
        for _ in range(2):  # the second time it is kept
            found = self.answers.respond(dns.message.make_query(name, "A").to_wire(), ip)
            assert isinstance(found, bytes)
        response = dns.message.from_wire(found)
        return response.answer[-1][0].to_text() if response.answer else dns.rcode.to_text(response.rcode())


@pytest.fixture
def rig() -> Rig:
    return Rig()


QUESTION = "sql.db.shop.svc.cluster.local"


@pytest.mark.parametrize("order", [(WEB, OTHER, TWIN, NODE), (NODE, OTHER, WEB, TWIN), (OTHER, WEB, NODE, TWIN)])
def test_an_answer_is_for_those_with_the_same_path(rig: Rig, order: tuple[str, ...]) -> None:
    wanted = {WEB: "10.96.0.8", TWIN: "10.96.0.8", OTHER: "NXDOMAIN", NODE: "NXDOMAIN"}
    assert {ip: rig.ask(ip, QUESTION) for ip in order} == wanted


def test_a_service_with_the_first_name_wins_at_once_and_for_everybody(rig: Rig) -> None:
    assert rig.ask(WEB, QUESTION) == "10.96.0.8"
    assert rig.ask(OTHER, QUESTION) == "NXDOMAIN"
    rig.service("shop/db", "10.96.0.9")
    assert rig.ask(WEB, QUESTION) == "NXDOMAIN", "what is below a Service is the Service's"
    assert rig.ask(WEB, "db.shop.svc.cluster.local") == rig.ask(OTHER, "db.shop.svc.cluster.local") == "10.96.0.9"


def test_a_service_at_the_end_of_the_path_counts_at_once(rig: Rig) -> None:
    assert rig.ask(WEB, "cache.db.shop.svc.cluster.local") == "SERVFAIL", "nobody knows names from outside here"
    rig.service("db/cache", "10.96.0.10")
    assert rig.ask(WEB, "cache.db.shop.svc.cluster.local") == "10.96.0.10"
    rig.service("db/cache", "10.96.0.11")
    assert rig.ask(WEB, "cache.db.shop.svc.cluster.local") == "10.96.0.11"


def test_an_address_that_becomes_another_pods_has_its_path(rig: Rig) -> None:
    assert rig.ask(WEB, QUESTION) == "10.96.0.8"
    rig.pod(WEB, "db/later")
    assert rig.ask(WEB, QUESTION) == "NXDOMAIN"
    rig.pod(WEB, "shop/again")
    assert rig.ask(WEB, QUESTION) == "10.96.0.8"


def test_letters_and_options_do_not_change_whose_answer_it_is(rig: Rig) -> None:
    assert rig.ask(WEB, "SQL.db.Shop.svc.cluster.local") == "10.96.0.8"
    assert rig.ask(OTHER, "sql.DB.shop.svc.cluster.local") == "NXDOMAIN"


addresses = st.sampled_from((WEB, OTHER, TWIN, NODE))
paths = st.sampled_from(("shop/sql", "shop/db", "db/sql", "db/db"))
questions = st.sampled_from(
    (QUESTION, "sql.db.db.svc.cluster.local", "sql.shop.db.svc.cluster.local", "sql.db.svc.cluster.local")
)
owners = st.tuples(st.sampled_from((WEB, OTHER)), st.sampled_from(("shop/x", "db/x")))


@settings(max_examples=60)
@given(st.lists(st.one_of(st.tuples(addresses, questions), paths, owners.map(list)), max_size=25))
def test_what_is_kept_is_what_a_new_server_would_say(steps: list[tuple[str, str] | str | list[str]]) -> None:
    """Questions, Services that come and go, and addresses that become those of other pods, in any order."""
    rig = Rig()
    for step in steps:
        if isinstance(step, list):
            rig.pod(*step)
        elif isinstance(step, str):
            (rig.gone if step in rig.services else partial(rig.service, ip="10.96.0.77"))(step)
        else:
            new = Rig()
            new.services.clear()
            new.services.update(rig.services)
            new.pods.update(rig.pods)
            assert rig.ask(*step) == new.ask(*step)
