"""What objects of the API say of a cluster, as far as `cluster status` reads them. Pure."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from podplane.cli import tables
from podplane.cli.cluster.facts import AgentPod, Object, Warned
from podplane.dns.node import MANAGED_BY, PODPLANE
from podplane.machine.cidrs import networks, of_kubeadm
from podplane.model.lease import Lease

COMPONENT = "podplane"
"""Of events that agents write."""


def agent_pod(pod: Object) -> AgentPod:
    status = (pod.get("status", {}).get("containerStatuses") or [{}])[0]
    ended = status.get("lastState", {}).get("terminated", {}).get("finishedAt")
    return AgentPod(
        pod["metadata"]["name"],
        pod.get("spec", {}).get("nodeName") or "",
        tables.is_ready(pod) and "deletionTimestamp" not in pod["metadata"],
        _why(pod),
        pod["spec"]["containers"][0].get("image") or "",
        status.get("imageID") or "",
        status.get("restartCount") or 0,
        _time(ended),
        _time(pod["metadata"].get("creationTimestamp")),
    )


def _time(said: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(said) if said else None


def _why(pod: Object) -> str:
    """What is wrong with it: what it waits for, else the condition that does not hold."""
    if "deletionTimestamp" in pod["metadata"]:
        return "it ends"
    if tables.is_ready(pod):
        return ""
    state = tables.pod_state(pod)
    why = (state == "Running" and _last_words(pod)) or tables.trouble(pod)
    return ": ".join(filter(None, ("" if state in ("Running", "Pending") else state, why)))


def _last_words(pod: Object) -> str:
    """The last line of what its container said when it ended; "" when it has not."""
    status = (pod.get("status", {}).get("containerStatuses") or [{}])[0]
    message = str(status.get("lastState", {}).get("terminated", {}).get("message") or "")
    return message.strip().rpartition("\n")[2]


def networks_of(values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of pods and of Services that the cluster names: agents' own configuration before kubeadm's."""
    named, kubeadm = _configured(values["config"] or {}).get("cluster_cidrs"), of_kubeadm(values["kubeadm"] or {})
    ranges = networks(text for one in values["ranges"] or () for text in one.get("spec", {}).get("cidrs") or ())
    return networks(
        one for one in (named if isinstance(named, list) else ()) if isinstance(one, str)
    ) or kubeadm.cluster, ranges or kubeadm.service


def _configured(config_map: Object) -> Mapping[str, Any]:
    """The networks in the configuration of agents; {} where it names none, or makes no sense."""
    import yaml

    try:
        content = yaml.load(str((config_map.get("data") or {}).get("config", "")), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        return {}
    found = content.get("network") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def ready_endpoints(slices: Iterable[Object]) -> int:
    endpoints = (one for slice_ in slices for one in slice_.get("endpoints") or ())
    return sum((one.get("conditions") or {}).get("ready") is not False for one in endpoints)


def is_podplanes(slice_: Object) -> bool:
    """Does a node offer its name server by it?"""
    return (slice_["metadata"].get("labels") or {}).get(MANAGED_BY) == PODPLANE


def lease(found: Object | None) -> Lease | None:
    return None if found is None else msgspec.convert(found, Lease)


def clock(dates: Iterable[str]) -> datetime.datetime:
    """The first of the API's dates that can be read, else the clock of this machine, which may be another than the cluster's."""
    for date in dates:
        with contextlib.suppress(ValueError):
            return email.utils.parsedate_to_datetime(date).astimezone(datetime.UTC)
    return datetime.datetime.now(datetime.UTC)


def warned(events: Iterable[Object]) -> Iterable[Warned]:
    """Those of podplane, the latest first."""
    own = (one for one in events if COMPONENT in (one.get("reportingComponent"), (one.get("source") or {}).get("component")))
    found = [
        Warned(
            one["involvedObject"].get("name") or "",
            one.get("reason") or "",
            one.get("message") or "",
            datetime.datetime.fromisoformat(_last(one)),
            one.get("count") or 1,
        )
        for one in own
    ]
    return sorted(found, key=lambda one: one.last, reverse=True)


def _last(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
