"""EndpointSlices of Services with a selector: which pods serve them, at which ports, and how well.

What is wanted is computed from the pods alone; what is stored is changed as little as that allows: an endpoint stays in its slice,
new ones fill slices up, and a slice that lost its last is removed, or stays empty if it is the only one of its family.
Sources: k8s.io/endpointslice (reconciler.go, utils.go), KEP-1672 (terminating), KEP-2433 and KEP-4444 (hints).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from podplane.apiserver.controllers import topology_hints
from podplane.apiserver.controllers.decision import Action, Controller, Create, Delete, Note, Patch, View, itself
from podplane.apiserver.controllers.pods import is_ready
from podplane.apiserver.controllers.topology_hints import ZONE
from podplane.controllers.objects import Key, Object, key_of, owned_by
from podplane.model.phases import ENDED

SERVICES, SLICES = "services", "endpointslices.discovery.k8s.io"
SERVICE_NAME, MANAGED_BY = "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"
NAME, HEADLESS = "endpointslice-controller.k8s.io", "service.kubernetes.io/headless"
MAX_ENDPOINTS = 100
NEAR = {"PreferClose": "forZones", "PreferSameZone": "forZones", "PreferSameNode": "forNodes"}

Group = tuple[str, str]
"""(address family, the ports as JSON): what the endpoints of one slice have in common."""
NO_PORTS = "[]"
"""Those of the one empty slice that a Service without endpoints has for each family."""


def of_pod(view: View, pod: Object) -> Iterable[Key]:
    """A pod concerns the Services of its namespace that choose it."""
    labels = pod["metadata"].get("labels")
    if labels:
        for service in view.may_select(SERVICES, pod["metadata"]["namespace"], labels):
            selector = service["spec"].get("selector")
            if selector and selector.items() <= labels.items():
                yield key_of(service)


def _of_slice(view: View, slice_: Object) -> Iterable[Key]:
    """A slice of ours concerns its Service: what somebody else changed in it is put right."""
    labels = slice_["metadata"].get("labels", {})
    if labels.get(MANAGED_BY) == NAME and SERVICE_NAME in labels:
        yield slice_["metadata"]["namespace"], labels[SERVICE_NAME]


def _decide(view: View, key: Key) -> Iterator[Action]:
    service = view.get(SERVICES, key)
    if service is None or "deletionTimestamp" in service["metadata"]:
        return  # its slices go with it
    stored = [s for s in view.controlled(SLICES, service) if s["metadata"].get("labels", {}).get(MANAGED_BY) == NAME]
    wanted: dict[Group, list[Object]] = {}
    hinted = topology_hints.is_wanted(service)
    if service["spec"].get("selector") and service["spec"].get("type") != "ExternalName":
        wanted = endpoints_of(view, service)
        for family in families_of(service):
            if hinted:
                yield from _hints(view, service, family, wanted, stored)
            if not any(group[0] == family for group in wanted):
                wanted[family, NO_PORTS] = []
    yield from _reconcile(service, wanted, stored)


def _hints(
    view: View, service: Object, family: str, wanted: dict[Group, list[Object]], stored: Sequence[Object]
) -> Iterator[Note]:
    """Give the endpoints of a family hints by zone, and say when they come, or why there are none."""
    endpoints = [endpoint for group, inner in wanted.items() if group[0] == family for endpoint in inner]
    had = any("hints" in endpoint for one in stored if one["addressType"] == family for endpoint in one.get("endpoints") or ())
    try:
        topology_hints.assign(endpoints, view.all("nodes"))
    except topology_hints.Refused as refused:
        yield Note(service, topology_hints.DISABLED, f"{refused}, addressType: {family}", "Warning")
    else:
        if not had:
            text = "Topology Aware Hints has been enabled"
            yield Note(service, topology_hints.ENABLED, f"{text}, addressType: {family}")


def families_of(service: Object) -> list[str]:
    """The address families of a Service."""
    return service["spec"].get("ipFamilies") or ["IPv4"]


def endpoints_of(view: View, service: Object) -> dict[Group, list[Object]]:
    """The endpoints of a Service, by family and ports."""
    found: dict[Group, list[Object]] = {}
    for pod in selected(view, service):
        ports = json.dumps(ports_of(service, pod))
        for family in families_of(service):
            address = next((ip["ip"] for ip in pod["status"].get("podIPs", ()) if (":" in ip["ip"]) == (family == "IPv6")), "")
            if address:
                found.setdefault((family, ports), []).append(_endpoint(view, service, pod, address))
    return found


def selected(view: View, service: Object) -> Iterator[Object]:
    """The pods that serve a Service now: those that have an address and have not ended."""
    for pod in view.labelled(service["metadata"]["namespace"], service["spec"]["selector"]):
        status = pod.get("status", {})
        if status.get("podIPs") and status.get("phase") not in ENDED:
            yield pod


def ports_of(service: Object, pod: Object) -> list[Object]:
    """The Service's ports as this pod has them; one whose name the pod doesn't know is left out."""
    found: list[Object] = []
    for port in service["spec"].get("ports", ()):
        number = target_port(port, pod)
        if number is not None:
            entry = {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": number}
            found.append(entry | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {}))
    return found


def target_port(port: Object, pod: Object) -> int | None:
    """The number of a Service's port at a pod; None when the pod has no port of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    if target.isdecimal():
        return int(target)
    sidecars = [c for c in pod["spec"].get("initContainers", ()) if c.get("restartPolicy") == "Always"]
    for container in (*pod["spec"]["containers"], *sidecars):
        for own in container.get("ports", ()):
            if own.get("name") == target and own.get("protocol", "TCP") == port.get("protocol", "TCP"):
                number: int = own["containerPort"]
                return number
    return None


def _endpoint(view: View, service: Object, pod: Object, address: str) -> Object:
    spec, metadata = pod["spec"], pod["metadata"]
    ready, terminating = is_ready(pod), "deletionTimestamp" in metadata
    publish = service["spec"].get("publishNotReadyAddresses", False)
    endpoint: Object = {
        "addresses": [address],
        "conditions": {
            "ready": publish or (ready and not terminating),
            "serving": ready,
            "terminating": terminating,
        },
        "targetRef": {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]},
        "nodeName": spec.get("nodeName", ""),
    }
    node = view.get("nodes", ("", spec.get("nodeName", "")))
    zone = node["metadata"].get("labels", {}).get(ZONE) if node is not None else None
    if zone:
        endpoint["zone"] = zone
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    distribution = "" if topology_hints.is_wanted(service) else service["spec"].get("trafficDistribution", "")
    near = NEAR.get(distribution, "")  # the annotation counts more
    if near == "forZones" and zone:
        endpoint["hints"] = {"forZones": [{"name": zone}]}
    elif near == "forNodes" and spec.get("nodeName"):
        endpoint["hints"] = {"forNodes": [{"name": spec["nodeName"]}]} | ({"forZones": [{"name": zone}]} if zone else {})
    return endpoint


# What is stored becomes what is wanted.


class _Slice(msgspec.Struct):
    """A stored slice, and the endpoints that it is going to have."""

    stored: Object
    endpoints: list[Object] = msgspec.field(default_factory=list)


def _reconcile(service: Object, wanted: dict[Group, list[Object]], stored: Sequence[Object]) -> Iterator[Action]:
    slices: dict[Group, list[_Slice]] = {}
    for one in stored:
        slices.setdefault((one["addressType"], json.dumps(one.get("ports") or [])), []).append(_Slice(one))
    labels = _labels(service)
    for group in dict.fromkeys((*slices, *wanted)):
        there, endpoints = slices.get(group, []), wanted.get(group)
        rest = _place(endpoints or (), there)
        for number, slice_ in enumerate(there):
            yield from _change(slice_, labels, is_wanted=bool(slice_.endpoints) or (endpoints == [] and number == 0))
        if endpoints == [] and not there:
            yield _new(service, group, (), labels)
        for start in range(0, len(rest), MAX_ENDPOINTS):
            yield _new(service, group, rest[start : start + MAX_ENDPOINTS], labels)


def _identity(endpoint: Object) -> tuple[str, str]:
    return endpoint["addresses"][0], endpoint.get("targetRef", {}).get("uid", "")


def _place(endpoints: Sequence[Object], slices: Sequence[_Slice]) -> list[Object]:
    """Put endpoints where they are already, then where there is room in slices that change anyway, then in others; returns the rest."""
    todo = {_identity(endpoint): endpoint for endpoint in endpoints}
    for slice_ in slices:
        for old in slice_.stored.get("endpoints") or ():
            if len(slice_.endpoints) < MAX_ENDPOINTS and (new := todo.pop(_identity(old), None)) is not None:
                slice_.endpoints.append(new)
    rest = list(todo.values())
    changing = [s for s in slices if s.endpoints != (s.stored.get("endpoints") or [])]
    for slice_ in (*changing, *sorted(slices, key=lambda s: -len(s.endpoints))):
        room = MAX_ENDPOINTS - len(slice_.endpoints)
        slice_.endpoints += rest[:room]
        rest = rest[room:]
    return rest


def _change(slice_: _Slice, labels: dict[str, str], *, is_wanted: bool) -> Iterator[Action]:
    stored = slice_.stored
    if not is_wanted:
        yield Delete(SLICES, stored)
        return
    own = stored["metadata"].get("labels", {})
    if slice_.endpoints != (stored.get("endpoints") or []) or own != labels:
        dropped = dict.fromkeys(own.keys() - labels.keys())
        yield Patch(SLICES, stored, {"endpoints": slice_.endpoints, "metadata": {"labels": {**labels, **dropped}}})


def _new(service: Object, group: Group, endpoints: Sequence[Object], labels: dict[str, str]) -> Create:
    family, ports = group
    metadata = service["metadata"]
    slice_ = {
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "labels": labels,
            "ownerReferences": [owned_by(service, "Service", "v1")],
        },
        "addressType": family,
        "ports": json.loads(ports),
        "endpoints": list(endpoints),
    }
    return Create(SLICES, metadata["namespace"], slice_)


def _labels(service: Object) -> dict[str, str]:
    """Those of the Service, and what the controller says."""
    labels = dict(service["metadata"].get("labels", {}))
    labels.pop(HEADLESS, None)
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return {**labels, SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: NAME}


def _of_node(view: View, _: Object) -> Iterable[Key]:
    """The CPUs and the zone of a node concern the Services with hints by zone."""
    return view.hinted()


CONTROLLER = Controller(
    "endpointslice-controller",
    {SERVICES: itself, "pods": of_pod, SLICES: _of_slice, "nodes": _of_node},
    _decide,
    matters={"nodes": topology_hints.what_matters},
)
