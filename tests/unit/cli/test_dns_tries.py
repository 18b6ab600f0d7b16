"""Which names a resolver asks for, and when it stops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.cli.dns.tries import data, hosts_entry, is_end, names, remarks
from podplane.dns.resolv_conf import ResolvConf

POD = ResolvConf(("10.96.0.10",), ("default.svc.cluster.local", "svc.cluster.local", "cluster.local"), ("ndots:5",))
NODE = ResolvConf(("10.96.0.10",))


def answer(rcode: str = "NOERROR", *records: str, name: str = "x.", type_: str = "A") -> dict[str, Any]:
    return {"name": name, "type": type_, "rcode": rcode, "records": [{"type": type_, "data": one} for one in records]}


@pytest.mark.parametrize(
    ("name", "conf", "wanted"),
    [
        ("api", POD, ["api.default.svc.cluster.local.", "api.svc.cluster.local.", "api.cluster.local.", "api."]),
        ("a.b.c.d.e.f", POD, ["a.b.c.d.e.f.", *(f"a.b.c.d.e.f.{one}." for one in POD.searches)]),
        ("example.com.", POD, ["example.com."]),
        ("api", NODE, ["api."]),
        ("a.b", ResolvConf(searches=("x",)), ["a.b.", "a.b.x."]),
        ("a", ResolvConf(searches=(".", "x")), ["a.", "a.x."]),
        ("a", ResolvConf(searches=("x", "x")), ["a.x.", "a."]),
    ],
)
def test_the_search_list_and_ndots_say_which_names(name: str, conf: ResolvConf, wanted: list[str]) -> None:
    assert names(name, conf) == wanted


@given(st.lists(st.text("ab", min_size=1, max_size=60), min_size=1, max_size=6).map(".".join))
def test_no_name_is_too_long_and_each_is_asked_for_once(name: str) -> None:
    found = names(name, POD)
    assert len(found) == len(set(found))
    assert all(one.endswith(".") and len(one) <= 254 for one in found)


@pytest.mark.parametrize(
    ("answers", "end"),
    [
        ([answer("NXDOMAIN"), answer("NXDOMAIN")], False),
        ([answer("NOERROR"), answer("NOERROR")], False),
        ([answer("SERVFAIL")], False),
        ([answer("NOERROR", "10.96.0.1"), answer("NOERROR")], True),
        ([answer("REFUSED")], True),
    ],
)
def test_a_resolver_stops_at_records_and_where_it_is_refused(answers: list[dict[str, Any]], end: bool) -> None:
    assert is_end(answers) is end


def test_an_alias_alone_is_no_end() -> None:
    alias = answer()
    alias["records"] = [{"type": "CNAME", "data": "y."}]
    assert not is_end([alias])


def test_where_musl_does_otherwise_is_said() -> None:
    missing = [answer("NXDOMAIN")]
    assert list(remarks("api", POD, [missing, [answer("NOERROR", "10.96.0.1")]])) == []
    empty = [answer("NOERROR", name="api.default.svc.cluster.local.")]
    (said,) = remarks("api", POD, [empty, missing])
    assert said == "musl's resolver (Alpine) ends at api.default.svc.cluster.local., which exists, without such records"
    (said,) = remarks("api", POD, [[answer("SERVFAIL")], missing])
    assert said == "musl's resolver (Alpine) ends at x., which got SERVFAIL"
    (said,) = remarks("a.b", ResolvConf(searches=("x",)), [missing, missing])
    assert said.startswith("musl's resolver (Alpine) asks for a.b. alone")
    assert list(remarks("a.b.", POD, [missing])) == []


def test_names_in_hosts_files_are_found_whatever_their_case() -> None:
    hosts = "# a comment\n127.0.0.1\tlocalhost\n10.244.1.2 db.corp.example DB # alias db2\n\nfd00::2\tdb\n"
    assert hosts_entry("db", hosts) == ["10.244.1.2", "fd00::2"]
    assert hosts_entry("DB.corp.example.", hosts) == ["10.244.1.2"]
    assert hosts_entry("db2", hosts) == [] == hosts_entry("", hosts)


def test_data_is_that_of_the_type_that_was_asked_for() -> None:
    found = answer("NOERROR", "10.96.0.1")
    found["records"].insert(0, {"type": "CNAME", "data": "y."})
    assert data([found, answer("NXDOMAIN")]) == ["10.96.0.1"]
    assert data([{**found, "type": "ANY"}]) == ["y.", "10.96.0.1"]
