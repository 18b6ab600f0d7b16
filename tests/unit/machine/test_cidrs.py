"""What a cluster says of its networks."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.kubeapi.client import Client, Contact
from podplane.kubeapi.errors import ApiError
from podplane.machine import cidrs
from podplane.machine.cidrs import Cidrs, apart, covering, of_kubeadm
from tests.plans import node

KUBEADM = """
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16,fd00:10:244::/48
  serviceSubnet: 10.96.0.0/12
"""
BY_KUBEADM = "the ConfigMap kubeadm-config"


class FakeApi(Client):
    """An API with these objects; an error in their place is raised."""

    def __init__(self, config_map: dict[str, Any] | ApiError, ranges: list[dict[str, Any]] | ApiError) -> None:
        self._config_map, self._ranges = config_map, ranges
        self.contact = Contact(True, 0.0)
        self.asked = 0
        """So often for the networks of Services."""

    async def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        assert (resource, namespace, name) == ("configmaps", "kube-system", "kubeadm-config")
        if isinstance(self._config_map, ApiError):
            raise self._config_map
        return self._config_map

    async def list(self, resource: str, *_: Any, **__: Any) -> bytes:
        assert resource == "servicecidrs.networking.k8s.io"
        self.asked += 1
        if isinstance(self._ranges, ApiError):
            raise self._ranges
        return msgspec.json.encode({"items": self._ranges})


MISSING, FORBIDDEN, AWAY = ApiError(404, "NotFound", ""), ApiError(403, "Forbidden", ""), ApiError(503, "Unavailable", "")
RANGES: list[dict[str, Any]] = [{"spec": {"cidrs": ["10.96.0.0/12"]}}, {"spec": {"cidrs": ["fd00:96::/112", "10.96.0.0/12"]}}]


async def test_kubeadm_and_the_ranges_of_services_say_more_than_blocks() -> None:
    found = await cidrs.find(FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, RANGES), node(1, (4, 6)).spec.pod_cidrs)
    assert found == Cidrs(("10.244.0.0/16", "fd00:10:244::/48"), ("10.96.0.0/12", "fd00:96::/112"), BY_KUBEADM, "ServiceCIDRs")
    assert found.of_pods == "10.244.0.0/16, fd00:10:244::/48 for pods (by the ConfigMap kubeadm-config)"
    assert found.of_services == "10.96.0.0/12, fd00:96::/112 for Services (by ServiceCIDRs)"


@pytest.mark.parametrize("error", [MISSING, FORBIDDEN])
async def test_what_is_not_there_or_may_not_be_seen_says_nothing(error: ApiError) -> None:
    found = await cidrs.find(FakeApi(error, error), [*node(1, (4, 6)).spec.pod_cidrs, *node(2, (4, 6)).spec.pod_cidrs])
    assert found.cluster == ("10.244.0.0/22", "fd00:10:244::/62") and found.cluster_from == cidrs.BLOCKS
    assert found.service == () and found.of_services == "none for Services"
    found = await cidrs.find(FakeApi({"data": {"ClusterConfiguration": KUBEADM}}, error), [])
    assert (found.service, found.service_from) == (("10.96.0.0/12",), BY_KUBEADM)


@pytest.mark.parametrize("api", [FakeApi(AWAY, RANGES), FakeApi({}, AWAY)])
async def test_an_api_that_is_away_is_no_answer(api: FakeApi) -> None:
    with pytest.raises(ApiError):
        await cidrs.find(api, [])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "networking: 5", "networking: {podSubnet: 7}", "networking: {podSubnet: [a]}", "a: &a [*a]"]
)
def test_what_makes_no_sense_says_nothing(text: str) -> None:
    assert of_kubeadm({"data": {"ClusterConfiguration": text}}) == Cidrs()
    assert of_kubeadm({}) == of_kubeadm({"data": None}) == Cidrs()


def test_blocks_with_no_narrow_network_in_common_are_of_several() -> None:
    assert covering(["10.0.0.0/24", "172.16.0.0/24"]) == ()
    assert covering(["10.0.0.0/24", "172.16.0.0/24", "fd00::/64"]) == ("fd00::/64",)
    assert covering(["10.0.0.0/24", "nonsense"]) == ("10.0.0.0/24",)


def test_where_blocks_are_of_several_networks_the_own_one_says_which_counts() -> None:
    blocks = ["172.20.5.0/24", "10.244.0.0/24", "10.244.1.0/24", "fd00::/64", "10.0.0.0/7"]
    assert covering(blocks, ["10.244.1.0/24"]) == ("10.244.0.0/23", "fd00::/64")
    assert covering(blocks, ["172.20.5.0/24"]) == ("172.20.5.0/24", "fd00::/64")
    assert covering(["10.0.0.0/7"], ["10.0.0.0/7"]) == ()


@pytest.mark.parametrize(
    ("own", "found"),
    [
        (["10.244.1.0/24"], ("10.244.0.0/16",)),
        ([], ("10.244.0.0/16",)),  # it gets its block later
        (["10.9.1.0/24"], ("10.0.0.0/8",)),
    ],
)
def test_what_was_found_before_counts_where_it_holds_the_own_blocks(own: list[str], found: tuple[str, ...]) -> None:
    assert covering(["172.20.5.0/24", "10.244.0.0/24", *own], own, ["10.244.0.0/16"]) == found
    assert covering(["10.244.0.0/24"], ["10.244.0.0/24"], ["10.244.0.0/16"]) == ("10.244.0.0/24",), "nothing is in doubt"


def test_blocks_that_can_not_be_of_the_networks_of_pods_are_named_as_nodes_have_them() -> None:
    blocks = ["10.9.0.0/24", "172.20.5.0/24", "FD00:1::/64", "fd00:0:1::/64", "10.0.0.0/7"]
    assert apart(blocks, ["10.244.0.0/22", "fd00::/62"]) == {
        "172.20.5.0/24": "the block 172.20.5.0/24 has no network of /8 in common with those of pods (10.244.0.0/22)",
        "FD00:1::/64": "the block FD00:1::/64 has no network of /32 in common with those of pods (fd00::/62)",
        "10.0.0.0/7": "the block 10.0.0.0/7 has no network of /8 in common with those of pods (10.244.0.0/22)",
    }
    assert apart(blocks, ["fd00::/62"]).keys() == {"FD00:1::/64"}, "there is no network of IPv4 to be apart from"


@given(st.lists(st.integers(0, (1 << 16) - 1), min_size=1, max_size=20))
def test_a_network_holds_all_blocks_and_half_of_it_does_not(numbers: list[int]) -> None:
    blocks = [f"10.{number >> 8}.{number & 255}.0/24" for number in numbers]
    (found,) = map(ipaddress.IPv4Network, covering(blocks))
    networks = [ipaddress.IPv4Network(block) for block in blocks]
    assert all(block.subnet_of(found) for block in networks)
    if found.prefixlen < 24:
        assert not any(all(block.subnet_of(half) for block in networks) for half in found.subnets())
    assert covering([str(found), *blocks]) == (str(found),), "it grows by what is outside alone"
