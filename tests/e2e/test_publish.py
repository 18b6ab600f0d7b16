"""`podplane publish`: Services on this machine's localhost."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Kubectl, Podplane
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("publish")]


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> Iterator[str]:
    """A Service of the lab's echo pods."""
    spec = {"selector": {"run": "echo"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    try:
        kubectl("create", "-f", "-", stdin=json.dumps(service))
        yield "web"
    finally:
        kubectl("delete", "service", "web", "--ignore-not-found")


def names(port: int, count: int) -> set[str]:
    """Who answers so many requests to the host's localhost."""
    answers = (urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read() for _ in range(count))
    return {json.loads(answer)["name"] for answer in answers}


def test_a_service_is_reached_from_the_host_until_it_is_stopped(web: str, lab: Podplane) -> None:
    port = free_port()
    assert f"127.0.0.1:{port} leads to Service default/web, port 80." in lab("publish", f"{port}:svc/web:http").stdout
    assert len(names(port, 40)) > 2, "it is the Service that answers, not one pod"
    assert f"127.0.0.1:{port}  default/web:80" in lab("publish").stdout
    lab("publish", "--stop", f"{port}:web")
    assert str(port) not in lab("publish").stdout
    with pytest.raises(OSError):
        names(port, 1)


def test_it_comes_back_with_the_lab(web: str, lab: Podplane) -> None:
    port = free_port()
    lab("publish", f"{port}:web")
    lab("down")
    lab("up")
    assert names(port, 1)
    lab("publish", "--stop", f"{port}:web")


def test_a_port_that_somebody_has_is_said_and_not_kept(web: str, lab: Podplane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = lab("publish", f"{port}:web", code=2)
    assert f"port {port} of the host is not available: Address already in use" in done.stderr
    assert lab("publish").stdout == "Nothing is published in namespace default.\n"


def test_a_low_port_is_refused_at_once_and_each_time(web: str, lab: Podplane, kubectl: Kubectl) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("port 80 is for everybody here")
    for _ in range(2):
        done = lab("publish", "svc/web", code=2)
        assert "port 80 of the host is not available: Permission denied" in done.stderr
        assert "write 8080:svc/web:80" in done.stderr
        annotations = kubectl("get", "service", "web", "-o", "jsonpath={.metadata.annotations}")
        assert "podplane.dev" not in annotations, "the lab has answered that the wish is taken back"


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ("99999:web", "a port is a number from 1 to 65535"),
        ("8080:svc/", "is nothing that can be published: write 8080:svc/web:80"),
        ("8080:nobody", 'services "nobody" not found'),
        ("8080:web:81", "say which TCP port of Service web is meant: it has 80"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(web: str, lab: Podplane, wish: str, why: str) -> None:
    done = lab("publish", wish, code=2)
    assert why in done.stderr and done.stderr.count("\n") == 1


def test_what_is_to_stop_is_named_by_the_hosts_port_or_is_all_of_a_namespace(lab: Podplane, kubectl: Kubectl) -> None:
    kubectl("create", "service", "clusterip", "two", "--tcp=80:8080", "--tcp=81:8080")
    try:
        first, second = free_port(), free_port()
        lab("publish", f"{first}:svc/two:80", f"{second}:two:81")
        assert "say what to publish no more" in lab("publish", "--stop", code=2).stderr
        assert lab("publish", "-n", "kube-system").stdout == "Nothing is published in namespace kube-system.\n"
        assert len(lab("publish", "-n", "kube-system", "-A").stdout.splitlines()) == 2
        lab("publish", "--stop", f"{first}:svc/two")
        assert lab("publish").stdout == f"127.0.0.1:{second}  default/two:81\n"
        assert lab("publish", "--stop", "--all").stdout == f"default/two is published at port {second} no more.\n"
        assert lab("publish", "-A").stdout == "Nothing is published.\n"
    finally:
        kubectl("delete", "service", "two")


def test_of_several_requested_ports_the_valid_ones_are_published(web: str, lab: Podplane) -> None:
    port = free_port()
    done = lab("publish", "nobody", f"{port}:web", "svc/", code=2)
    assert done.stderr.count("\n") == 2 and f"127.0.0.1:{port} leads to" in done.stdout
    lab("publish", "--stop", f"{port}:web")
