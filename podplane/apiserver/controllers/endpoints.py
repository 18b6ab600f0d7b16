"""Endpoints, the older form of EndpointSlices: kept for clients that still read it, and mirrored where users write it themselves.

Sources: kube-controller-manager, pkg/controller/endpoint and pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from podplane.apiserver.controllers.decision import Action, Controller, Create, Delete, Patch, View, itself
from podplane.apiserver.controllers.endpoint_slices import (
    MANAGED_BY,
    MAX_ENDPOINTS,
    SERVICE_NAME,
    SERVICES,
    SLICES,
    endpoints_of,
    of_pod,
)
from podplane.controllers.objects import Key, Object, owned_by

ENDPOINTS = "endpoints"
OWN_LABEL, OWN_NAME = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
MIRROR, SKIP = "endpointslicemirroring-controller.k8s.io", "endpointslice.kubernetes.io/skip-mirror"
MAX_ADDRESSES = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"


def _decide(view: View, key: Key) -> Iterator[Action]:
    service, there = view.get(SERVICES, key), view.get(ENDPOINTS, key)
    if service is None or not service["spec"].get("selector") or "deletionTimestamp" in service["metadata"]:
        if there is not None and service is None and there["metadata"].get("labels", {}).get(OWN_LABEL) == OWN_NAME:
            yield Delete(ENDPOINTS, there)
        return
    labels = {**service["metadata"].get("labels", {}), OWN_LABEL: OWN_NAME}
    subsets, truncated = _subsets(view, service)
    annotations = {OVER_CAPACITY: "truncated" if truncated else None}
    if there is None:
        kept = {k: v for k, v in annotations.items() if v}
        made = {"metadata": {"name": key[1], "labels": labels, "annotations": kept}, "subsets": subsets}
        yield Create(ENDPOINTS, key[0], made)
    elif (there.get("subsets") or []) != subsets or there["metadata"].get("labels", {}) != labels:
        yield Patch(ENDPOINTS, there, {"metadata": {"labels": labels, "annotations": annotations}, "subsets": subsets})


def _subsets(view: View, service: Object) -> tuple[list[Object], bool]:
    """The endpoints of the first family, ready and not, and whether there were too many."""
    family, left, truncated = (service["spec"].get("ipFamilies") or ["IPv4"])[0], MAX_ADDRESSES, False
    found: list[Object] = []
    for (own, ports), endpoints in sorted(endpoints_of(view, service).items()):
        if own != family:
            continue
        live = [e for e in endpoints if not e["conditions"]["terminating"]]
        truncated = truncated or len(live) > left
        live, left = live[:left], left - len(live[:left])
        subset: Object = {}
        for name, ready in (("addresses", True), ("notReadyAddresses", False)):
            if chosen := [_address(e) for e in live if e["conditions"]["ready"] is ready]:
                subset[name] = chosen
        if subset:
            found.append(subset | ({"ports": json.loads(ports)} if json.loads(ports) else {}))
    return found, truncated


def _address(endpoint: Object) -> Object:
    found = {"ip": endpoint["addresses"][0], "nodeName": endpoint["nodeName"], "targetRef": endpoint["targetRef"]}
    return found | ({"hostname": endpoint["hostname"]} if "hostname" in endpoint else {})


CONTROLLER = Controller("endpoint-controller", {SERVICES: itself, "pods": of_pod, ENDPOINTS: itself}, _decide)


# Mirroring.


def _mirror(view: View, key: Key) -> Iterator[Action]:
    service, endpoints = view.get(SERVICES, key), view.get(ENDPOINTS, key)
    owned = view.controlled(SLICES, endpoints) if endpoints is not None else ()  # of Endpoints that are gone, they go too
    stored = [s for s in owned if _is_mirror_of(s, key[1])]
    wanted: list[Object] = []
    if service is not None and not service["spec"].get("selector") and endpoints is not None:
        labels = endpoints["metadata"].get("labels", {})
        if labels.get(SKIP) != "true" and OWN_LABEL not in labels:
            wanted = list(_slices(endpoints))
    for old in stored:
        match = next((new for new in wanted if all(old.get(f) == new[f] for f in ("addressType", "ports", "endpoints"))), None)
        if match is None:
            yield Delete(SLICES, old)
        else:
            wanted.remove(match)
    for new in wanted:
        yield Create(SLICES, key[0], new)


def _is_mirror_of(slice_: Object, name: str) -> bool:
    labels = slice_["metadata"].get("labels", {})
    return bool(labels.get(MANAGED_BY) == MIRROR and labels.get(SERVICE_NAME) == name)


def _slices(endpoints: Object) -> Iterator[Object]:
    """The slices that say the same."""
    name = endpoints["metadata"]["name"]
    for subset in endpoints.get("subsets") or ():
        for family in ("IPv4", "IPv6"):
            found = [
                _mirrored(address, ready)
                for kind, ready in (("addresses", True), ("notReadyAddresses", False))
                for address in subset.get(kind) or ()
                if (":" in address["ip"]) == (family == "IPv6")
            ][:MAX_ADDRESSES]
            for start in range(0, len(found), MAX_ENDPOINTS):
                yield {
                    "metadata": {
                        "generateName": f"{name}-",
                        "labels": {SERVICE_NAME: name, MANAGED_BY: MIRROR},
                        "ownerReferences": [owned_by(endpoints, "Endpoints", "v1")],
                    },
                    "addressType": family,
                    "ports": [{"name": "", "protocol": "TCP", **port} for port in subset.get("ports") or ()],
                    "endpoints": found[start : start + MAX_ENDPOINTS],
                }


def _mirrored(address: Object, ready: bool) -> Object:
    found: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    return found | {field: address[field] for field in ("nodeName", "hostname", "targetRef") if address.get(field)}


def _of_mirror(_: View, slice_: Object) -> Iterable[Key]:
    labels = slice_["metadata"].get("labels", {})
    if labels.get(MANAGED_BY) == MIRROR and SERVICE_NAME in labels:
        yield slice_["metadata"]["namespace"], labels[SERVICE_NAME]


MIRRORING = Controller("endpointslicemirroring-controller", {SERVICES: itself, ENDPOINTS: itself, SLICES: _of_mirror}, _mirror)
