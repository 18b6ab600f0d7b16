"""The answers of this name server beside those of CoreDNS to the same questions about the same objects.

`data/coredns.jsonl.gz` has what CoreDNS answered: a line for each question, [mode, name, type, answer]. Where `coredns` is on the PATH it
is asked again, a part of the questions; with FACTS_UPDATE=1 it is asked all of them, and the file is written anew.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from podplane.dns.config import PodNames
from tests.unit.apiserver.live import access_to, served
from tests.unit.dns import cluster, coredns
from tests.unit.dns.coredns import Fact
from tests.unit.dns.differences import DIFFERENCES, Case
from tools.dns_facts import DOMAIN, Cluster, Question, pod_questions, questions

FACTS = Path(__file__).parent / "data" / "coredns.jsonl.gz"
PAGE = Path(__file__).parents[3] / "docs" / "dns.md"
PROGRAM = shutil.which("coredns")
IS_UPDATE = bool(os.environ.get("FACTS_UPDATE"))
EVERY = 1 if IS_UPDATE else 11
"""So many questions are there for one that CoreDNS is asked again."""


def all_questions() -> Iterator[tuple[PodNames, list[Question]]]:
    """By mode."""
    one = Cluster()
    about_pods = pod_questions(one)
    for mode in coredns.MODES:
        yield mode, [*(questions(one) if mode == "insecure" else ()), *about_pods]


def facts() -> dict[tuple[str, str, str], Fact]:
    """What CoreDNS answered, by mode, name and type."""
    with gzip.open(FACTS, "rt", encoding="utf-8") as lines:
        return {(mode, name, type_): answer for mode, name, type_, answer in map(json.loads, lines)}


def existing(known: dict[tuple[str, str, str], Fact]) -> set[tuple[str, str]]:
    """Names that exist, by mode: those that some type is there of, and all that they end with."""
    there = {
        (mode, name) for (mode, name, type_), fact in known.items() if type_ not in ("ANY", "SOA") and fact[0] == "NOERROR"
    }
    parts = ((mode, name.lower().split(".")) for mode, name in there)
    return {(mode, ".".join(labels[n:])) for mode, labels in parts for n in range(len(labels))}


def test_the_facts_are_of_these_questions() -> None:
    assert list(facts()) == [(mode, *one) for mode, several in all_questions() for one in several]


async def test_answers_are_those_of_coredns_but_for_what_is_listed() -> None:
    api = await cluster.filled(Cluster())
    known, unlisted, met = facts(), [], set()
    there = existing(known)
    for mode, several in all_questions():
        async with cluster.served(api, mode) as ask:
            for name, type_ in several:
                case = Case(
                    mode,
                    name,
                    type_,
                    known[mode, name, type_],
                    coredns.asked(ask, (name, type_)),
                    (mode, name.lower()) in there,
                )
                if case.theirs != case.ours:
                    reason = next((one for one in DIFFERENCES if one.covers(case)), None)
                    met.add(reason)
                    unlisted += [] if reason else [case]
    assert not unlisted, "\n".join(map(str, [len(unlisted), *unlisted[:: len(unlisted) // 40 + 1]]))
    assert met == set(DIFFERENCES)


def test_people_are_told_each_difference() -> None:
    told = " ".join(PAGE.read_text().split())
    assert [one.reason for one in DIFFERENCES if one.reason not in told] == []


@pytest.mark.skipif(PROGRAM is None, reason="no coredns on the PATH")
async def test_coredns_answers_as_it_did(tmp_path: Path) -> None:
    api = await cluster.filled(Cluster())
    async with served(api.server.handle) as port, coredns.running(str(PROGRAM), access_to(port), tmp_path) as servers:
        found: dict[tuple[str, str, str], Fact] = {}
        for mode, several in all_questions():
            asked = several[::EVERY]
            answers = await asyncio.to_thread(coredns.over_tcp, servers[mode], asked)
            found |= {(mode, *one): answer for one, answer in zip(asked, answers, strict=True)}
    if IS_UPDATE:
        text = "".join(json.dumps([*key, answer], separators=(",", ":")) + "\n" for key, answer in found.items())
        FACTS.write_bytes(gzip.compress(text.encode(), mtime=0))
    known = facts()
    assert found == {key: known[key] for key in found}


@pytest.mark.skipif(PROGRAM is None, reason="no coredns on the PATH")
async def test_coredns_follows_the_changes_that_this_api_tells(tmp_path: Path) -> None:
    """Its client lists and watches as every Go client does."""
    api = await cluster.filled(Cluster())
    services = "/api/v1/namespaces/shop/services"
    async with served(api.server.handle) as port, coredns.running(str(PROGRAM), access_to(port), tmp_path) as servers:

        async def becomes(name: str, expected: str) -> None:
            ask = partial(coredns.over_tcp, servers["insecure"], [(f"{name}.shop.svc.{DOMAIN}", "A")])
            for _ in range(1500):
                rcode, _, answer, *_ = (await asyncio.to_thread(ask))[0]
                if expected == (answer[0].split()[-1] if answer else rcode):
                    return
                await asyncio.sleep(0.02)
            raise AssertionError((name, expected, rcode, answer))

        await becomes("late", "NXDOMAIN")
        await api("POST", services, {"metadata": {"name": "late"}, "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}})
        await becomes("late", "10.96.7.7")
        slice_ = next(one["metadata"]["name"] for one in Cluster().slices if one["metadata"]["name"].startswith("empty-"))
        path = f"/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/{slice_}"
        await api("PATCH", path, {"endpoints": [{"addresses": ["10.244.7.7"]}]})
        await becomes("empty", "10.244.7.7")
        await api("DELETE", f"{services}/late")
        await becomes("late", "NXDOMAIN")
