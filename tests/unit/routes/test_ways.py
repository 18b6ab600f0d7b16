"""By which backend a peer is reached while nodes change to another one."""

from __future__ import annotations

import msgspec

from podplane.model.config import BACKENDS, NetworkConfig
from podplane.model.objects import Node
from podplane.routes import ways
from tests.plans import config, node


def saying(text: str | None, number: int = 2) -> Node:
    """A node that says by which backends it can be reached."""
    one = node(number, (4, 6))
    annotations = {BACKENDS: text} if text is not None else {}
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=annotations))


def changing(backend: str, *former: str) -> NetworkConfig:
    """Settings of a node that had other backends before."""
    return msgspec.structs.replace(config((4, 6)), backend=backend, former_backends=former)


def chosen(peer: Node, settings: NetworkConfig) -> str | None:
    """The name of the backend by which a peer is reached."""
    way = ways.towards(peer, settings)
    return way.name if way else None


def test_a_peer_is_reached_by_the_new_backend_once_it_says_so() -> None:
    settings = changing("vxlan", "host-gw")
    assert chosen(saying("host-gw"), settings) == "host-gw"
    assert chosen(saying("host-gw,vxlan"), settings) == "vxlan"
    assert chosen(saying("vxlan"), settings) == "vxlan"


def test_a_peer_that_says_nothing_is_reached_by_the_clusters_backend() -> None:
    assert chosen(saying(None), changing("vxlan", "host-gw")) == "vxlan"


def test_a_peer_that_has_none_of_the_nodes_backends_is_not_reached() -> None:
    assert chosen(saying("host-gw"), changing("vxlan")) is None
    assert chosen(saying(""), changing("host-gw")) is None
    assert chosen(saying("wireguard,gre"), changing("host-gw", "vxlan")) is None


def test_former_backends_are_left_when_all_nodes_have_the_new_one() -> None:
    settings = changing("vxlan", "host-gw")
    assert not ways.are_left(settings, [saying("vxlan"), saying("host-gw", 3)])
    assert ways.are_left(settings, [saying("vxlan"), saying(None, 3), saying("host-gw,vxlan", 4)])


def test_pods_have_the_mtu_that_passes_by_all_of_the_nodes_backends() -> None:
    own = node(1, (4, 6))
    assert [ways.pod_mtu(own, settings) for settings in (changing("host-gw"), changing("vxlan"))] == [1500, 1450]
    assert ways.pod_mtu(own, changing("host-gw", "vxlan")) == ways.pod_mtu(own, changing("vxlan", "host-gw")) == 1450


def test_a_node_has_the_devices_of_all_its_backends() -> None:
    own = node(1, (4, 6))
    assert ways.devices(changing("host-gw")) == () and ways.plan_node(own, changing("host-gw")) == {}
    for settings in (changing("vxlan"), changing("host-gw", "vxlan")):
        assert ways.devices(settings) == ("podplane-vxlan4", "podplane-vxlan6")
        assert len(ways.plan_node(own, settings)) > 2
