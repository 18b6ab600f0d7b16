"""What a Service may say: what kube-apiserver refuses is refused, and what a change of its type makes senseless goes by itself."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.kinds import services
from tests.unit.apiserver.test_server import Api, Object

SERVICES = "/api/v1/namespaces/default/services"
ENDPOINTS = "/api/v1/namespaces/default/endpoints"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SPECIAL = {
    "127.0.0.1": "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    "::1": "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    "::ffff:127.0.0.1": "must not be an IPv4-mapped IPv6 address",
    "::ffff:192.0.2.1": "must not be an IPv4-mapped IPv6 address",
    "2001:db8::1%eth0": "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    "0.0.0.0": "may not be unspecified (0.0.0.0)",
    "::": "may not be unspecified (::)",
    "169.254.1.1": "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    "fe80::1": "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    "224.0.0.5": "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    "ff02::1": "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    "239.1.2.3": "may not be in the multicast range (224.0.0.0/4, ff00::/8)",
    "ff0e::1": "may not be in the multicast range (224.0.0.0/4, ff00::/8)",
}


def service(**spec: Any) -> Object:
    return {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}


def balanced(**spec: Any) -> Object:
    return service(type="LoadBalancer", **spec)


@pytest.mark.parametrize(("address", "why"), SPECIAL.items())
async def test_an_address_that_is_no_single_hosts_is_refused(address: str, why: str) -> None:
    api = Api()
    said = await api.refused("Invalid", "POST", SERVICES, service(externalIPs=["192.0.2.1", address]))
    assert said == f'Service "web" is invalid: spec.externalIPs[1]: Invalid value: "{address}": {why}'
    subsets = [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]
    said = await api.refused("Invalid", "POST", ENDPOINTS, {"metadata": {"name": "web"}, "subsets": subsets})
    assert said == f'Endpoints "web" is invalid: subsets[0].addresses[0].ip: Invalid value: "{address}": {why}'
    slice_ = {"addressType": "IPv6" if ":" in address else "IPv4", "endpoints": [{"addresses": [address]}]}
    said = await api.refused("Invalid", "POST", SLICES, {"metadata": {"name": "web"}, **slice_})
    assert f'endpoints[0].addresses[0]: Invalid value: "{address}": {why}' in said


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            service(trafficDistribution="Foo"),
            'spec.trafficDistribution: Unsupported value: "Foo": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"',
        ),
        (
            service(externalTrafficPolicy="Local"),
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
        ),
        (
            service(loadBalancerSourceRanges=["192.0.2.0/24"]),
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            service(type="NodePort", loadBalancerClass="example.com/theirs"),
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            service(allocateLoadBalancerNodePorts=False),
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            balanced(healthCheckNodePort=30001),
            "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and "
            "`externalTrafficPolicy` is 'Local'",
        ),
        (balanced(loadBalancerClass="a b"), 'spec.loadBalancerClass: Invalid value: "a b"'),
        (
            service(type="ExternalName", externalName="a.example", ipFamilies=["IPv4"]),
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
        ),
        (service(sessionAffinity="Foo"), 'spec.sessionAffinity: Unsupported value: "Foo"'),
    ],
)
async def test_what_does_not_go_together_is_refused(body: Object, why: str) -> None:
    assert why in await Api().refused("Invalid", "POST", SERVICES, body)


@pytest.mark.parametrize(
    "spec",
    [
        {"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"},
        {"type": "NodePort", "externalTrafficPolicy": "Local"},
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001},
        {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "loadBalancerClass": "example.com/theirs"},
        {"type": "ExternalName", "externalName": "example.com", "externalIPs": ["192.0.2.1"]},
        {"sessionAffinity": "ClientIP", "trafficDistribution": "PreferClose"},
    ],
)
async def test_what_goes_together_is_taken(spec: Object) -> None:
    made = await Api()("POST", SERVICES, service(**spec))
    assert spec.items() <= made["spec"].items()


@pytest.mark.parametrize(
    ("ingress", "why"),
    [
        ({"ip": "not-an-ip"}, 'ingress[0].ip: Invalid value: "not-an-ip": must be a valid IP address'),
        ({"ip": "192.0.2.1", "ipMode": "Foo"}, 'ingress[0].ipMode: Unsupported value: "Foo": supported values: "Proxy", "VIP"'),
        ({"ipMode": "VIP"}, "ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set"),
        ({"hostname": "no_name"}, 'ingress[0].hostname: Invalid value: "no_name"'),
        ({"hostname": "192.0.2.1"}, "must be a DNS name, not an IP address"),
    ],
)
async def test_a_status_that_says_no_address_is_refused(ingress: Object, why: str) -> None:
    api = Api()
    await api("POST", SERVICES, balanced())
    patch = {"status": {"loadBalancer": {"ingress": [ingress]}}}
    assert why in await api.refused("Invalid", "PATCH", f"{SERVICES}/web/status", patch)


async def test_a_status_says_how_an_address_is_reached_and_only_load_balancers_have_one() -> None:
    api = Api()
    await api("POST", SERVICES, balanced())
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.example"}]}}}
    ingress = (await api("PATCH", f"{SERVICES}/web/status", patch))["status"]["loadBalancer"]["ingress"]
    assert ingress == [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "a.example"}]
    await api("PATCH", f"{SERVICES}/web", {"spec": {"type": "ClusterIP"}})
    patch["status"]["loadBalancer"]["ingress"] = [{"ip": "192.0.2.2"}]
    why = "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    assert why in await api.refused("Invalid", "PATCH", f"{SERVICES}/web/status", patch)


async def test_with_its_type_goes_what_no_other_type_has() -> None:
    api = Api()
    spec = {"loadBalancerClass": "example.com/theirs", "externalTrafficPolicy": "Local"}
    before = (await api("POST", SERVICES, balanced(**spec)))["spec"]
    after = (await api("PATCH", f"{SERVICES}/web", {"spec": {"type": "ClusterIP"}}))["spec"]
    gone = {"loadBalancerClass", "externalTrafficPolicy", "healthCheckNodePort", "allocateLoadBalancerNodePorts"}
    assert before.keys() - after.keys() == gone


async def test_what_its_type_can_not_have_is_refused_when_it_is_said_anew() -> None:
    api = Api()
    await api("POST", SERVICES, balanced())
    patch = {"spec": {"type": "ClusterIP", "externalTrafficPolicy": "Local"}}
    assert "externally-accessible" in await api.refused("Invalid", "PATCH", f"{SERVICES}/web", patch)
    await api("PATCH", f"{SERVICES}/web", {"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}})
    refused = await api.refused("Invalid", "PATCH", f"{SERVICES}/web", {"spec": {"type": "ClusterIP"}})
    assert "spec.loadBalancerSourceRanges: Forbidden" in refused


async def test_class_and_health_check_port_stay_as_long_as_the_type_does() -> None:
    api = Api()
    await api("POST", SERVICES, balanced(externalTrafficPolicy="Local", healthCheckNodePort=30001))
    refused = await api.refused("Invalid", "PATCH", f"{SERVICES}/web", {"spec": {"loadBalancerClass": "example.com/a"}})
    assert 'spec.loadBalancerClass: Invalid value: "example.com/a": may not change once set' in refused
    refused = await api.refused("Invalid", "PATCH", f"{SERVICES}/web", {"spec": {"healthCheckNodePort": 30002}})
    assert "spec.healthCheckNodePort: Forbidden: field is immutable" in refused
    await api("PATCH", f"{SERVICES}/web", {"spec": {"type": "NodePort"}})
    changed = await api("PATCH", f"{SERVICES}/web", {"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/a"}})
    assert changed["spec"]["loadBalancerClass"] == "example.com/a"


async def test_an_external_ip_is_no_cluster_ip_nor_one_of_pods() -> None:
    api = Api()
    cidrs = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}}
    await api("POST", "/apis/networking.k8s.io/v1/servicecidrs", cidrs)
    for number, (address, range_) in enumerate((("10.96.7.7", "10.96.0.0/16"), ("fd00:96::7", "fd00:96::/112"))):
        said = await api.refused(
            "Invalid", "POST", SERVICES, service(externalIPs=["192.0.2.1", *["192.0.2.2"] * number, address])
        )
        assert f"spec.externalIPs[{number + 1}]" in said
        assert said.endswith(f'"{address}": may not be in {range_}, whose addresses are cluster IPs of Services')
    for address, range_ in (("10.244.1.1", "10.244.0.0/16"), ("fd00:10:244:1::1", "fd00:10:244::/48")):
        said = await api.refused("Invalid", "POST", SERVICES, service(externalIPs=[address]))
        assert said.endswith(f'"{address}": may not be in {range_}, whose addresses are those of pods')
    await api("POST", SERVICES, service(externalIPs=["10.97.0.1"]))
    more = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}}
    await api("POST", "/apis/networking.k8s.io/v1/servicecidrs", more)
    await api("PATCH", f"{SERVICES}/web", {"metadata": {"labels": {"a": "b"}}})  # what was good before can be changed still


@pytest.mark.parametrize(
    ("families", "why"),
    [
        (["IPv5"], 'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"'),
        (["IPv6", "IPv6"], 'spec.ipFamilies[1]: Duplicate value: "IPv6"'),
    ],
)
async def test_families_are_ip_families_each_once(families: list[str], why: str) -> None:
    assert why in await Api().refused("Invalid", "POST", SERVICES, service(ipFamilies=families, clusterIP="None"))


def test_source_ranges_that_were_stored_before_may_stay_though_they_would_be_refused_today() -> None:
    stored = balanced(loadBalancerSourceRanges=["192.0.2.1/24"])
    services.complete_service(stored)
    (cause,) = services.check_service(stored, None)
    assert cause.message == 'Invalid value: "192.0.2.1/24": must not have bits set beyond the prefix length'
    assert list(services.check_service(stored, stored)) == []
