"""What `podplane dns query` writes."""

from __future__ import annotations

from typing import Any

from podplane.cli.dns import show
from podplane.cli.dns.answered import Answered
from podplane.cli.dns.asking import Asking
from podplane.dns.resolv_conf import ResolvConf

CONF = ResolvConf(("10.96.0.10",), ("default.svc.cluster.local",), ("ndots:5",))
WEB = Asking("pod default/web", "node1", "10.244.1.2", CONF, "cluster.local", "ClusterFirst", "default/web")
SOA = {
    "name": "cluster.local.",
    "type": "SOA",
    "ttl": 30,
    "data": "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
}


def answer(
    name: str, type_: str, *records: tuple[str, str], rcode: str = "NOERROR", source: str = "Service default/api", why: str = ""
) -> dict[str, Any]:
    rows = [{"name": name, "type": kind, "ttl": 5, "data": data} for kind, data in records]
    return {
        "name": name,
        "type": type_,
        "rcode": rcode,
        "source": source,
        "why": why,
        "records": rows,
        "authority": [] if rows else [SOA],
    }


def test_each_name_in_turn_and_what_comes_of_it() -> None:
    first, second = "api.default.svc.cluster.local.", "api."
    missing = [answer(first, kind, rcode="NXDOMAIN", why="there is no Service api") for kind in ("A", "AAAA")]
    found = [answer(second, "A", ("CNAME", "x.example."), ("A", "192.0.2.1")), answer(second, "AAAA", why="no IPv6")]
    text = show.answered(Answered(WEB, "api", ("A", "AAAA"), tried=[missing, found], remarks=["musl differs"]))
    assert (
        text
        == """\
Pod default/web on node1 asks from 10.244.1.2, dnsPolicy ClusterFirst
  servers     10.96.0.10
  search      default.svc.cluster.local
  ndots       5

  NAME                             TYPE      ANSWER             TTL   FROM
  api.default.svc.cluster.local.   A, AAAA   NXDOMAIN           5 s   there is no Service api
  api.                             A         CNAME x.example.   5 s   Service default/api
                                             192.0.2.1          5 s
                                   AAAA      no such record     5 s   no IPv6
  note        musl differs

default/web gets 192.0.2.1 for api, after 4 questions."""
    )


def test_an_alias_that_leads_to_no_such_record() -> None:
    tried = [[answer("api.", "A", ("CNAME", "x."), ("A", "192.0.2.1")), answer("api.", "AAAA", ("CNAME", "x."), why="no IPv6")]]
    text = show.answered(Answered(WEB, "api.", ("A", "AAAA"), tried=tried))
    assert (
        """
  NAME   TYPE   ANSWER           TTL   FROM
  api.   A      CNAME x.         5 s   Service default/api
                192.0.2.1        5 s
         AAAA   CNAME x.         5 s   Service default/api
                no such record         no IPv6
"""
        in text
    )


def test_nothing_is_found() -> None:
    refused = [answer("api.", "A", rcode="REFUSED", source="who may ask")]
    text = show.answered(Answered(WEB, "api", ("A",), tried=[refused]))
    assert text.endswith("default/web gets no A record for api, after 1 question.")
    node = Asking("node node1", "node1", "192.168.1.10", CONF, "cluster.local")
    text = show.answered(Answered(node, "api", ("A",), tried=[refused]))
    assert text.startswith("Node node1 asks from 192.168.1.10\n  servers     10.96.0.10\n\n")
    assert text.endswith("A node has no search domains of the cluster: `--from` a pod, or write api.default.svc.cluster.local.")


def test_who_asks_nobody_or_others() -> None:
    text = show.answered(Answered(WEB, "localhost", ("A",), ["127.0.0.1", "::1"]))
    assert text.endswith("default/web gets 127.0.0.1, ::1 for localhost from its /etc/hosts: it asks nobody.")
    other = Asking(
        "pod default/web",
        "node1",
        "10.244.1.2",
        CONF,
        "cluster.local",
        "None",
        "default/web",
        notes=["it asks others"],
        asks_cluster=False,
    )
    text = show.answered(Answered(other, "api", ("A",)))
    assert "  note        it asks others" in text
    assert text.endswith("What default/web gets for api is not known: it does not ask the cluster's DNS.")


def test_an_address_is_shown_as_it_was_asked_for_and_long_answers_are_cut() -> None:
    name = "1.0.96.10.in-addr.arpa."
    tried = [[answer(name, "PTR", *(("PTR", f"n{n}.") for n in range(30)))]]
    lines = show.answered(Answered(WEB, name, ("PTR",), tried=tried)).splitlines()
    assert lines[-1] == "default/web gets n0., n1., n2., n3., n4. and 25 more for 10.96.0.1, after 1 question."
    assert "and 10 more" in lines[-3]


def test_what_others_answer_does_nothing_to_a_terminal() -> None:
    tried = [[answer("x.", "TXT", ("TXT", '"\x1b[31m"'), source="192.0.2.53\x07")]]
    text = show.answered(Answered(WEB, "x.", ("TXT",), tried=tried))
    assert "\x1b" not in text and "\x07" not in text


def test_the_document_has_all_of_it() -> None:
    tried = [[answer("api.", "A", ("A", "192.0.2.1"))]]
    document = Answered(WEB, "api", ("A",), tried=tried).document()
    assert document["from"]["pod"] == "default/web" and document["from"]["ndots"] == 5
    assert document["tries"][0]["name"] == "api."
    assert document["result"] == ["192.0.2.1"]
