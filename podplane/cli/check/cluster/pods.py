"""The pods of a check of a cluster. Pure, but for `started`.

    on-NODE, also-on-NODE   speak for themselves       in-NODE   in the network of its node, for which it speaks
    two-containers          of two containers

They go to their nodes without a scheduler, whatever taints are there. Those in the network of pods are as the PodSecurity standard
`restricted` wants it: they ping without CAP_NET_RAW, by a sysctl that every kubelet lets pods set. Those of nodes are root, with
CAP_NET_RAW and no other capability: that needs `privileged`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podplane.cli.check.cluster.place import Place
from podplane.cli.check.parties import CONTAINERS, Member, runs
from podplane.cli.check.patience import patient
from podplane.cli.names import some
from podplane.cli.tables import failure, has_ended, pod_ips, pod_state, trouble
from podplane.cli.waiting import Waiting
from podplane.kubeapi.errors import ApiError
from podplane.runtime.probe import USUAL_PORT, WAIT

Object = dict[str, Any]
PROBER = ("python", "-m", "podplane.runtime.probe")
PARTY = "podplane.dev/check-party"
"""Label of pods by which policies of the check choose one."""
PORT_NAME = "probe"
TWO_UP_TO, TWO_ON = 32, 3
"""Up to so many nodes have two pods each; of more, so many."""
WAIT_SECONDS, STALLED_SECONDS, POLL_SECONDS = 180.0, 60.0, 0.5
"""For pods to run; while none of them comes to it, as nodes may have to pull the image; between two looks."""
LIFE_SECONDS = 3600
"""Pods of a check that was killed end of themselves after so long."""
HOPELESS = (
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CrashLoopBackOff",
    "RunContainerError",
)
NOBODY = 65534
PINGS = [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}]
"""Every group may have sockets for pings, of IPv6, too (icmp(7))."""


def manifests(nodes: Sequence[str], image: str, *, two_on_each: bool) -> list[Object]:
    """All pods; those in the network of pods first."""
    two = nodes if two_on_each or len(nodes) <= TWO_UP_TO else nodes[:TWO_ON]
    places = [(f"on-{node}", node) for node in nodes] + [(f"also-on-{node}", node) for node in two]
    wanted = [_pod(name, node, image) for name, node in places]
    wanted.append(_pod("two-containers", nodes[0], image, CONTAINERS))
    for number, one in enumerate(wanted):
        one["metadata"]["labels"] = {PARTY: f"p{number}"}
    return [*wanted, *(_on_host(_pod(f"in-{node}", node, image)) for node in nodes)]


def _pod(name: str, node: str, image: str, containers: Sequence[str] = CONTAINERS[:1]) -> Object:
    first, *others = [_container(one, image) for one in containers]
    first["ports"] = [{"name": PORT_NAME, "containerPort": USUAL_PORT, "protocol": "TCP"}]
    spec = {
        "nodeName": node,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": PINGS,
        },
        "containers": [first, *others],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _container(name: str, image: str) -> Object:
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*PROBER, WAIT],
        "securityContext": security,
    }


def _on_host(pod: Object) -> Object:
    """The same in the network of its node, where sysctls are the node's."""
    spec = pod["spec"]
    spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    spec["securityContext"] = {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in spec["containers"]:
        del container["ports"]
        container["securityContext"]["capabilities"]["add"] = ["NET_RAW"]
    return pod


def members(pods: Sequence[Object]) -> list[Member]:
    """Who speaks for what: for a pod its first container, for a node the pod in its network."""
    found: list[Member] = []
    for pod in pods:
        meta, node, ips = pod["metadata"], pod["spec"]["nodeName"], tuple(pod_ips(pod))
        first, *others = [one["name"] for one in pod["spec"]["containers"]]
        place = (meta["namespace"], meta["name"])
        kind, name = ("node", node) if pod["spec"].get("hostNetwork") else ("pod", meta["name"])
        found.append(Member(name, kind, *place, first, node, ips))
        found += [Member(f"{name}:{one}", "container", *place, one, node, ips) for one in others]
    return found


def started(place: Place) -> tuple[list[Object], dict[str, str]]:
    """The pods that run, and why others don't, once there is nothing more to wait for."""
    end, best, waiting = time.monotonic() + patient(WAIT_SECONDS), (-1, 0.0), Waiting()
    while True:
        found = place.objects("pods")
        missing = [one for one in found if not runs(one)]
        now = time.monotonic()
        if len(found) - len(missing) != best[0]:
            best = (len(found) - len(missing), now)
        hopeful = [one for one in missing if pod_state(one) not in HOPELESS and not has_ended(one)]
        if not hopeful or now > end or now - best[1] > patient(STALLED_SECONDS):
            return [one for one in found if runs(one)], dict(_reasons(place, missing))
        waiting.look(lambda: f"the check's own pods: {some([one['metadata']['name'] for one in missing])}")  # noqa: B023
        time.sleep(POLL_SECONDS)


def _reasons(place: Place, missing: Sequence[Object]) -> Iterator[tuple[str, str]]:
    """By whom a pod would have spoken for; the last event says what its node could not do."""
    said = _last_events(place) if missing else {}
    for pod in missing:
        name, spec = pod["metadata"]["name"], pod["spec"]
        about = f"the check's pod {name} does not run on {spec['nodeName']}: {_reason(pod, said)}"
        yield (spec["nodeName"] if spec.get("hostNetwork") else name), about


def _reason(pod: Object, said: Mapping[str, str]) -> str:
    if message := pod.get("status", {}).get("message"):  # a kubelet that does not admit it
        return str(message)
    why = failure(pod) or said.get(pod["metadata"]["uid"]) or trouble(pod) or f"it is {pod_state(pod)}"
    if has_ended(pod):
        return f"its container ended: is it of this version of podplane, and may it run as it is to? ({why})"
    return why


def _last_events(place: Place) -> Mapping[str, str]:
    """Warnings about pods by their uid; none where events may not be read."""
    try:
        found = place.client.objects("events", place.namespace, fieldSelector="type=Warning")
    except ApiError:
        return {}
    found.sort(key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""))
    return {one.get("involvedObject", {}).get("uid", ""): str(one.get("message", "")).strip() for one in found}
