"""The Service `kubernetes` of the namespace `default`: how pods reach the API, kept as kube-apiserver keeps it.

The Service and the cluster's own ServiceCIDR are made again when they are gone; what a user changed in them stays. The Service's
Endpoints and EndpointSlice are repaired, at once rather than within kube-apiserver's ten seconds. Both name one address: the one that the
API server advertises.
Sources: kube-apiserver, pkg/controlplane/controller/kubernetesservice and defaultservicecidr, pkg/controlplane/reconcilers
(endpointsadapter.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from podplane.apiserver.controllers.decision import Action, Controller, Create, Delete, Patch, View
from podplane.apiserver.controllers.endpoint_slices import SERVICE_NAME, SERVICES, SLICES
from podplane.apiserver.controllers.endpoints import ENDPOINTS, SKIP
from podplane.apiserver.service_ips import RANGES
from podplane.controllers.objects import Key, Object, key_of
from podplane.state.value import IPAddress

NAMESPACE, NAME = "default", "kubernetes"
KEY = (NAMESPACE, NAME)
PORT_NAME, SERVICE_PORT = "https", 443
FORMER_SLICES = ("kubernetes-ipv4", "kubernetes-ipv6")
"""As podplane itself named them before; they may be in a lab's store still."""


class Published(msgspec.Struct, frozen=True):
    """The API server as pods reach it: the cluster IP of its Service, the address that it advertises, and the port there; and the
    networks of the cluster's own ServiceCIDR."""

    cluster_ip: IPAddress
    address: IPAddress
    port: int
    cidrs: tuple[str, ...]

    def range(self) -> Object:
        """The ServiceCIDR of which the cluster IP is."""
        return {"metadata": {"name": NAME}, "spec": {"cidrs": list(self.cidrs)}}

    def service(self) -> Object:
        """The Service, of one family."""
        labels = {"component": "apiserver", "provider": "kubernetes"}
        spec = {
            "type": "ClusterIP",
            "clusterIP": str(self.cluster_ip),
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": SERVICE_PORT, "targetPort": self.port}],
        }
        return {"metadata": {"name": NAME, "labels": labels}, "spec": spec}

    def endpoints(self) -> Object:
        """The Endpoints. They say that they are not to be mirrored: there is a slice."""
        subset = {"addresses": [{"ip": str(self.address)}], "ports": self._ports()}
        return {"metadata": {"name": NAME, "labels": {SKIP: "true"}}, "subsets": [subset]}

    def slice(self) -> Object:
        """The EndpointSlice."""
        return {
            "metadata": {"name": NAME, "labels": {SERVICE_NAME: NAME}},
            "addressType": f"IPv{self.address.version}",
            "endpoints": [{"addresses": [str(self.address)], "conditions": {"ready": True}}],
            "ports": self._ports(),
        }

    def _ports(self) -> list[Object]:
        return [{"name": PORT_NAME, "port": self.port, "protocol": "TCP"}]

    def objects(self) -> tuple[tuple[str, Object], ...]:
        """All of them, with their resources."""
        return (SERVICES, self.service()), (ENDPOINTS, self.endpoints()), (SLICES, self.slice())


def _its_own(_: View, object_: Object) -> Iterable[Key]:
    """Only the objects of this name concern it, and the slices of former versions."""
    if key_of(object_) == KEY or (object_["metadata"].get("namespace") == NAMESPACE and _is_former(object_)):
        yield KEY


def _its_range(_: View, range_: Object) -> Iterable[Key]:
    if range_["metadata"]["name"] == NAME:
        yield KEY


def _is_former(object_: Object) -> bool:
    return object_["metadata"]["name"] in FORMER_SLICES


def _repair(view: View, resource: str, wanted: Object, fields: tuple[str, ...]) -> Iterator[Action]:
    """Make an object with these labels and fields, or set them."""
    there = view.get(resource, KEY)
    if there is None:
        yield Create(resource, NAMESPACE, wanted)
        return
    own, labels = there["metadata"].get("labels", {}), wanted["metadata"]["labels"]
    if own != labels or any(there.get(field) != wanted[field] for field in fields):
        changed = {field: wanted[field] for field in fields}
        yield Patch(resource, there, {**changed, "metadata": {"labels": {**dict.fromkeys(own), **labels}}})


def controller(published: Published) -> Controller:
    """The controller of this API server's Service."""

    def decide(view: View, _: Key) -> Iterator[Action]:
        if view.get(RANGES, ("", NAME)) is None:
            yield Create(RANGES, "", published.range())
        if view.get(SERVICES, KEY) is None:
            yield Create(SERVICES, NAMESPACE, published.service())
        yield from _repair(view, ENDPOINTS, published.endpoints(), ("subsets",))
        there = view.get(SLICES, KEY)
        if there is not None and there["addressType"] != published.slice()["addressType"]:
            yield Delete(SLICES, there)  # the type of a slice can't be changed
        yield from _repair(view, SLICES, published.slice(), ("endpoints", "ports"))
        for name in FORMER_SLICES:
            former = view.get(SLICES, (NAMESPACE, name))
            if former is not None and former["metadata"].get("labels") == {SERVICE_NAME: NAME}:
                yield Delete(SLICES, former)

    watches = {**dict.fromkeys((SERVICES, ENDPOINTS, SLICES), _its_own), RANGES: _its_range}
    return Controller("kubernetes-service-controller", watches, decide)
