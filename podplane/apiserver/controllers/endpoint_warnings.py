"""Endpoints that nobody serves, written by hand: addresses of the Service range. Nodes leave them out; here it is said."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.decision import Action, Controller, Note, View, itself
from podplane.apiserver.service_ips import RANGES, SERVICES
from podplane.controllers.objects import Key, Object
from podplane.model.service import SERVICE_NAME

SLICES, MANAGED_BY = "endpointslices.discovery.k8s.io", "endpointslice.kubernetes.io/managed-by"
OURS = "endpointslice-controller.k8s.io"
"""Who makes slices of pods, whose addresses are never in a Service range."""


def _decide(view: View, key: Key) -> Iterator[Action]:
    slice_ = view.get(SLICES, key)
    labels = slice_["metadata"].get("labels", {}) if slice_ is not None else {}
    service = view.get(SERVICES, (key[0], labels.get(SERVICE_NAME, "")))
    if slice_ is None or service is None or labels.get(MANAGED_BY) == OURS or slice_["addressType"] == "FQDN":
        return
    ranges = [ipaddress.ip_network(cidr) for range_ in view.all(RANGES) for cidr in range_["spec"].get("cidrs", ())]
    for address in _addresses(slice_):
        inside = next((range_ for range_ in ranges if ipaddress.ip_address(address) in range_), None)
        if inside is not None:
            why = f"endpoint {address} of EndpointSlice {key[1]} lies in the Service range {inside}: it is not used"
            yield Note(service, "EndpointNotUsed", why, "Warning")


def _addresses(slice_: Object) -> Iterable[str]:
    return (endpoint["addresses"][0] for endpoint in slice_.get("endpoints") or ())


CONTROLLER = Controller("endpoint-warnings", {SLICES: itself}, _decide)
