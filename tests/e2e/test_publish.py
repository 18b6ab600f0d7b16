"""`podplane publish`: Services on this machine's localhost."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Kubectl, Podplane

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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


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
    assert f"port {port} of the host can't be had: Address already in use" in done.stderr
    assert lab("publish").stdout == "Nothing is published.\n"


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
