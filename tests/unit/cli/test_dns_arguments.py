"""What users write after the commands about names, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.cli.dns import asking
from podplane.cli.dns.arguments import check_name
from podplane.cli.names import place
from podplane.dns.resolv_conf import NodeDns
from podplane.lab.errors import LabError


@pytest.mark.parametrize(
    ("pod", "found"),
    [
        ("web-1", ("default", "web-1")),
        ("shop/web-1", ("shop", "web-1")),
        ("pod/web-1", ("default", "web-1")),
        ("pods/web-1", ("default", "web-1")),
    ],
)
def test_a_pod(pod: str, found: tuple[str, str]) -> None:
    assert place(pod, "default") == found


@pytest.mark.parametrize("pod", ["", "/", "shop/", "/web", "a/b/c", "pod/"])
def test_no_pod(pod: str) -> None:
    with pytest.raises(LabError, match="is no pod: write web-1, or shop/web-1"):
        place(pod, "default")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "the name is empty"),
        ("a..b", "nothing between two dots"),
        (".a", "nothing between two dots"),
        ("a" * 64, "more than 63 characters"),
        ("a." * 127 + "a", "more than 253 characters"),
        ("ä.example", r"write it in its ASCII form \(xn--…\)"),
    ],
)
def test_what_is_wrong_with_a_name(name: str, why: str) -> None:
    with pytest.raises(LabError, match=why):
        check_name(name)


@pytest.mark.parametrize("name", [".", "a", "a.b.", "_http._tcp.web", "*.example.test"])
def test_names(name: str) -> None:
    """With another dot before it, each of them is none."""
    check_name(name)
    with pytest.raises(LabError, match="nothing between two dots"):
        check_name(f".{name}")


class Client:
    """Of a lab with one pod."""

    def __init__(self, pod: dict[str, Any]) -> None:
        self.pod = pod

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        return self.pod

    def objects(self, resource: str) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "node1"}}]


def test_a_server_that_is_one_too_many_is_none_that_the_pod_asks() -> None:
    servers = [f"192.0.2.{n}" for n in (1, 2, 3)]
    pod = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"nodeName": "node1", "dnsConfig": {"nameservers": servers}, "containers": []},
        "status": {"phase": "Running", "podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}]},
    }
    who = asking.of_pod(Client(pod), "default", "web", NodeDns(("10.96.0.10",), "cluster.local"))
    assert who.conf.nameservers == ("10.96.0.10", "192.0.2.1", "192.0.2.2")
    assert who.notes[0] == "it asks 192.0.2.1, 192.0.2.2 when the cluster's DNS does not answer"
