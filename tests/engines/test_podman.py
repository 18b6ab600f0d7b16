"""Debian's podman with its CNI back end on a node of a lab's cluster: `podman run --network podplane`."""

from __future__ import annotations

import ipaddress
import json
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import until
from tests.engines import image
from tests.engines.conftest import NODE, Site, url
from tests.engines.machine import needing
from tests.engines.podman import NEEDED, Podman

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("engines"), needing(NEEDED)]
LAB_POD = "echo-node1-1"


@pytest.fixture(scope="module")
def podman(site: Site) -> Podman:
    return Podman(site)


@pytest.fixture(scope="module")
def served(site: Site, podman: Podman) -> Iterator[list[str]]:
    """A container, with a port of the machine; its addresses."""
    id_ = podman.run("served", "--publish", "8090:8080")
    yield podman.ips("served")
    podman("rm", "--force", "--time", "0", "served")
    assert id_ not in site.attached()


def test_containers_and_pods_of_the_lab_reach_each_other_with_their_own_addresses(
    site: Site, podman: Podman, served: list[str]
) -> None:
    of_lab = site.pod_ips(LAB_POD)
    assert len(of_lab) == len(served) == 2
    assert site.from_lab(LAB_POD, *map(url, served)) == of_lab
    for own, ip in zip(served, of_lab, strict=True):
        answer = json.loads(podman.ask("served", ip))
        assert (answer["name"], answer["source"]) == (LAB_POD, own)


def test_a_published_port_leads_to_the_container(site: Site, served: list[str]) -> None:
    assert site.from_lab(LAB_POD, *(url(ip, 8090) for ip in site.ips)) == site.pod_ips(LAB_POD)


def test_a_container_gets_the_address_and_the_mac_that_it_asks_for(site: Site, podman: Podman) -> None:
    blocks = map(ipaddress.ip_network, site.api.get("nodes", "", NODE)["spec"]["podCIDRs"])
    four, six = (str(block[77]) for block in blocks)
    podman.run("asking", "--ip", four, "--ip6", six, "--mac-address", "0a:58:00:00:00:4d")
    assert podman.ips("asking") == [four, six]
    assert site.from_lab(LAB_POD, url(four), url(six)) == site.pod_ips(LAB_POD)
    assert "0a:58:00:00:00:4d" in podman("inspect", "asking")
    podman("rm", "--force", "--time", "0", "asking")
    podman.run("asking", "--ip", four)
    assert podman.ips("asking")[0] == four, "it is free again"
    podman("rm", "--force", "--time", "0", "asking")


def test_a_container_is_attached_anew_when_it_starts_again(site: Site, podman: Podman) -> None:
    podman.run("again")
    podman("restart", "--time", "0", "again")
    podman.until_it_serves("again")
    assert site.from_lab(LAB_POD, *map(url, podman.ips("again"))) == site.pod_ips(LAB_POD)
    podman("rm", "--force", "--time", "0", "again")


def test_a_container_whose_start_was_killed_can_be_started_again(site: Site, podman: Podman) -> None:
    before = site.attached()
    podman(
        "create", "--name", "half", "--network", "podplane", "--cgroup-parent", site.machine.group, image.NAME, "serve", "8080"
    )
    site.agent.stop()
    starting = podman.begin("start", "half")
    until(lambda: site.machine.runs("podplane-cni"))
    starting.end(signal.SIGKILL)
    site.agent.resume()
    until(lambda: not site.machine.runs("podplane-cni"))
    assert site.attached() == before
    podman("start", "half")
    podman.until_it_serves("half")
    assert site.from_lab(LAB_POD, *map(url, podman.ips("half"))) == site.pod_ips(LAB_POD)
    podman("rm", "--force", "--time", "0", "half")


def test_a_container_that_ends_by_itself_is_detached(site: Site, podman: Podman) -> None:
    id_ = podman.run("ending", words=("ask", "127.0.0.1", "1", "1"))
    until(lambda: id_ not in site.attached())
    podman("rm", "ending")


def test_a_container_that_ends_while_the_agent_is_away_is_detached_when_it_is_back(site: Site, podman: Podman) -> None:
    id_ = podman.run("ending", words=("pause",))
    site.kill_agent()
    podman("kill", "ending")
    site.start_agent()
    until(lambda: id_ not in site.attached())
    podman("rm", "--force", "ending")
