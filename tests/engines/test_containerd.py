"""Debian's containerd on a node of a lab's cluster: sandboxes of a kubelet's making, by CRI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e import test_further_networks as further
from tests.e2e.conftest import until
from tests.engines.conftest import Site, url
from tests.engines.containerd import NEEDED, Containerd
from tests.engines.cri import TCP
from tests.engines.machine import needing

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("engines"), needing(NEEDED)]
LAB_POD, OTHER_LAB_POD = "echo-node1-1", "echo-node1-2"
POLICIES = "networkpolicies.networking.k8s.io"
LIMITS = {"kubernetes.io/ingress-bandwidth": "20M", "kubernetes.io/egress-bandwidth": "10M"}


class Sandbox(NamedTuple):
    """A pod of the API, and the sandbox that runs for it; `container` runs in it."""

    name: str
    id: str
    container: str
    ips: list[str]


@pytest.fixture(scope="module")
def engine(site: Site) -> Containerd:
    engine = Containerd(site)
    engine.start()
    engine.load()
    return engine


def attach(site: Site, engine: Containerd, name: str, *words: str, **config: Any) -> Sandbox:
    """A pod and its sandbox; a container of it runs our program with these words."""
    id_ = engine.run(name, site.create_pod(name, app=name), **config)
    sandbox = begun(engine, name, id_, *words)
    site.report_pod(name, sandbox.ips)
    return sandbox


def begun(engine: Containerd, name: str, id_: str, *words: str) -> Sandbox:
    """A sandbox with such a container; one that serves does so by now."""
    sandbox = Sandbox(name, id_, engine.begin(id_, *words), engine.ips(id_))
    until(lambda: words[0] != "serve" or engine.ask(sandbox.container, "127.0.0.1"))
    return sandbox


def detach(site: Site, engine: Containerd, *sandboxes: Sandbox) -> None:
    """As a kubelet ends pods: it asks again and again."""
    for one in sandboxes:
        for end in (engine.stop, engine.stop, engine.remove):
            end(one.id)
        assert one.id not in site.attached()
        site.api.delete("pods", "default", one.name, grace=0)


@pytest.fixture(scope="module")
def web(site: Site, engine: Containerd) -> Iterator[Sandbox]:
    """It serves; a port of the machine leads to it, and its rates are limited."""
    sandbox = attach(site, engine, "web", "serve", "8080", ports=((TCP, 8080, 8081),), annotations=LIMITS)
    yield sandbox
    detach(site, engine, sandbox)


@pytest.fixture(scope="module")
def client(site: Site, engine: Containerd) -> Iterator[Sandbox]:
    sandbox = attach(site, engine, "client", "pause")
    yield sandbox
    detach(site, engine, sandbox)


def test_the_engine_takes_the_network_as_it_was_installed(engine: Containerd) -> None:
    assert engine.conditions().items() >= {"RuntimeReady": True, "NetworkReady": True}.items()


def test_the_agent_has_two_capabilities_and_no_more(site: Site) -> None:
    """All tests of this folder are of such an agent."""
    status = Path(f"/proc/{site.agent.pid}/status").read_text()
    assert "CapPrm:\t0000000000003000\n" in status, "CAP_NET_ADMIN (12), CAP_NET_RAW (13)"


def test_sandboxes_and_pods_of_the_lab_reach_each_other_with_their_own_addresses(
    site: Site, engine: Containerd, web: Sandbox, client: Sandbox
) -> None:
    of_lab = site.pod_ips(LAB_POD)
    assert len(of_lab) == len(web.ips) == len(client.ips) == 2
    assert site.from_lab(LAB_POD, *map(url, web.ips)) == of_lab
    for own, ip, beside in zip(client.ips, of_lab, web.ips, strict=True):
        answer = json.loads(engine.ask(client.container, ip))
        assert (answer["name"], answer["source"]) == (LAB_POD, own)
        assert engine.ask(client.container, beside) == own


def test_a_service_of_the_cluster_leads_to_the_sandbox(site: Site, engine: Containerd, web: Sandbox, client: Sandbox) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "engine-web"}, "spec": spec}
    ip = site.api.create("services", "default", body)["spec"]["clusterIP"]
    try:
        until(lambda: site.from_lab(LAB_POD, url(ip, 80)) == site.pod_ips(LAB_POD)[:1])
        until(lambda: engine.ask(client.container, ip, 80) == client.ips[0])
    finally:
        site.api.delete("services", "default", "engine-web")


def test_a_port_of_the_machine_leads_to_the_sandbox(site: Site, web: Sandbox) -> None:
    assert site.from_lab(LAB_POD, *(url(ip, 8081) for ip in site.ips)) == site.pod_ips(LAB_POD)
    assert site.machine(str(site.machine.logs / "probe"), "ask", "127.0.0.1", "8081", "5")


def test_annotations_limit_the_rates_of_the_sandbox(site: Site, web: Sandbox) -> None:
    shapers = [line for line in site.machine("tc", "qdisc", "show").splitlines() if " tbf " in line]
    assert sorted(word for line in shapers for word in line.split() if word.endswith("bit")) == ["10Mbit", "20Mbit"]


def test_a_sandbox_gets_the_further_interfaces_that_its_pod_asks_for(site: Site, engine: Containerd) -> None:
    site.api.create("customresourcedefinitions.apiextensions.k8s.io", "", further.KIND)
    site.kubectl("wait", "--for=condition=Established", f"crd/{further.DEFINITIONS}", "--timeout=10s")
    further.create(site.kubectl, further.definition("blue", subnets=["10.20.0.0/24"]))
    before = engine.netns()
    id_ = engine.run("further", site.create_pod("further", {further.NETWORKS: "blue"}))
    (netns,) = engine.netns() - before
    links = site.machine("nsenter", f"--net=/run/netns/{netns}", "ip", "-o", "addr", "show", "net1")
    told = json.loads(site.api.get("pods", "default", "further")["metadata"]["annotations"][further.STATUS])
    assert [one["interface"] for one in told] == ["eth0", "net1"] and told[0]["ips"] == engine.ips(id_)
    assert f"inet {told[1]['ips'][0]}/24" in links
    detach(site, engine, Sandbox("further", id_, "", engine.ips(id_)))


def policy(name: str, whose: dict[str, str], peers: dict[str, str]) -> dict[str, Any]:
    """Only pods with these labels may reach those with those."""
    rule = {"from": [{"podSelector": {"matchLabels": peers}}]}
    spec = {"podSelector": {"matchLabels": whose}, "policyTypes": ["Ingress"], "ingress": [rule]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def test_policies_know_the_sandbox_as_the_pod_that_it_is(site: Site, engine: Containerd, web: Sandbox, client: Sandbox) -> None:
    def denied() -> list[Any]:
        """What comes of connections that are not allowed, all at one time."""
        tries: list[Callable[[], Any]] = [partial(site.from_lab, OTHER_LAB_POD, url(ip), seconds=1) for ip in web.ips]
        tries += [partial(engine.ask, client.container, ip, seconds=1) for ip in web.ips]
        tries += [partial(engine.ask, web.container, ip, seconds=1) for ip in of_lab]
        with ThreadPoolExecutor(len(tries)) as pool:
            return list(pool.map(lambda one: one(), tries))

    of_lab, allowed = site.pod_ips(LAB_POD), {"side": "allowed"}
    site.api.patch("pods", "default", LAB_POD, {"metadata": {"labels": allowed}})
    policies = [policy("to-web", {"app": "web"}, allowed), policy("to-lab-pod", allowed, {"app": "client"})]
    try:
        for one in policies:
            site.api.create(POLICIES, "default", one)
        until(lambda: not any(denied()))
        assert site.from_lab(LAB_POD, *map(url, web.ips)) == of_lab
        assert [json.loads(engine.ask(client.container, ip))["source"] for ip in of_lab] == client.ips
    finally:
        for one in policies:
            site.api.delete(POLICIES, "default", one["metadata"]["name"])
        site.api.patch("pods", "default", LAB_POD, {"metadata": {"labels": dict.fromkeys(allowed)}})


def test_sandboxes_come_and_go_when_the_agent_is_back(site: Site, engine: Containerd, web: Sandbox, client: Sandbox) -> None:
    going = attach(site, engine, "going", "pause")
    uid = site.create_pod("coming", app="coming")
    site.kill_agent()
    assert engine.ask(client.container, web.ips[1]) == client.ips[1], "packets pass without an agent"
    with ThreadPoolExecutor(2) as pool:
        stopped, came = pool.submit(engine.stop, going.id), pool.submit(engine.run, "coming", uid)
        site.start_agent()
        stopped.result()
        id_ = came.result()
    assert going.id not in site.attached() and id_ in site.attached()
    coming = begun(engine, "coming", id_, "serve", "8080")
    assert site.from_lab(LAB_POD, *map(url, coming.ips)) == site.pod_ips(LAB_POD)
    detach(site, engine, going, coming)


def test_an_engine_that_is_killed_while_it_attaches_a_sandbox_leaves_nothing_attached(site: Site, engine: Containerd) -> None:
    before, uid = site.attached(), site.create_pod("half", app="half")
    site.agent.stop()
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(engine.run, "half", uid)
        until(lambda: site.machine.runs("podplane-cni"))
        engine.kill()
        assert isinstance(lost.exception(), OSError)
    site.agent.resume()
    until(lambda: not site.machine.runs("podplane-cni"))
    assert site.attached() == before
    engine.start()
    for left in engine.of_pod("half"):
        engine.stop(left)
        engine.remove(left)
    whole = engine.run("half", uid)
    engine.stop(whole)
    engine.remove(whole)
    site.api.delete("pods", "default", "half", grace=0)


def test_an_engine_that_was_killed_finds_its_sandboxes_and_ends_them(site: Site, engine: Containerd, client: Sandbox) -> None:
    before = engine.netns()
    sandbox = attach(site, engine, "orphan", "serve", "8080")
    engine.kill()
    assert site.from_lab(LAB_POD, *map(url, sandbox.ips)) == site.pod_ips(LAB_POD), "packets pass without an engine"
    engine.start()
    assert engine.is_ready(sandbox.id) and engine.ips(sandbox.id) == sandbox.ips
    detach(site, engine, sandbox)
    assert engine.netns() == before
    assert sandbox.ips[0] not in site.machine("ip", "neigh") + site.machine("ip", "route")
