"""Whose the cluster's DNS is."""

from __future__ import annotations

import msgspec
import pytest

from podplane.dns import standing
from podplane.dns.settings import DnsSettings
from podplane.model.service import Service

OWN = DnsSettings(ips=("10.96.0.10",))
TOLD = DnsSettings(ips=("10.96.0.10",), take_over=True)
COREDNS = {"k8s-app": "kube-dns"}


def service(path: str = "kube-system/kube-dns", ips: tuple[str, ...] = ("10.96.0.10",), **spec: object) -> Service:
    namespace, _, name = path.partition("/")
    whole = {"clusterIP": ips[0] if ips else "None", "clusterIPs": ips or ("None",), **spec}
    return msgspec.convert({"metadata": {"namespace": namespace, "name": name}, "spec": whole}, Service)


@pytest.mark.parametrize(
    ("services", "own", "said"),
    [
        ([], OWN, ""),
        ([service()], OWN, ""),
        ([service()], TOLD, ""),
        ([service(selector=COREDNS)], OWN, "dns.takeOver"),
        ([service(selector=COREDNS)], TOLD, ""),
        ([service(ips=("10.96.0.53",))], TOLD, "has 10.96.0.53: give these in dns.ips"),
        ([service(ips=())], TOLD, "has no address"),
        ([service("kube-system/rke2-coredns")], TOLD, "only kube-system/kube-dns can be taken over"),
        ([service(), service("shop/web")], OWN, "the Service shop/web has 10.96.0.10"),
        ([service(ips=("10.96.0.10", "fd00:10:96::a"))], OWN, ""),
    ],
)
def test_names_are_answered_where_nobody_else_does_or_it_is_told(services: list[Service], own: DnsSettings, said: str) -> None:
    found = standing.why_not(services, own)
    assert (said in found and "10.96.0.10" in found) if said else not found


def test_services_of_concern_are_those_of_the_name_or_of_an_address() -> None:
    concerned = [service(ips=("10.96.0.53",)), service("shop/web")]
    assert all(standing.concerns(one, OWN) for one in concerned)
    assert not standing.concerns(service("shop/web", ("10.96.0.11",)), OWN) and not standing.concerns(service("a/b", ()), OWN)


@pytest.mark.parametrize("content", [{"ips": ["10.96.0"]}, {"ips": ["10.96.0.10"], "domain": "a..b"}, {"takeOver": True}])
def test_settings_that_can_t_be_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(content, DnsSettings)
