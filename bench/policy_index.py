"""The index of labels and selectors, and who reaches whom, in a large cluster: what a change costs, a start, and memory.

100,000 pods as in `slim_pods`, each with a label of its own, 20 replicas of a workload; 10,000 policies, each of which selects the pods of
a workload and has two peers. A process of its own, so that what else there is in memory doesn't count; times are its own, too.
"""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from bench import judging, slim_pods
from bench.common import Row
from podplane.model.pod_info import Labels, NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy, PodSelector
from podplane.policy.ends import ends_of
from podplane.policy.index import PolicyIndex
from podplane.policy.matrix import matrix

PODS, POLICIES, CHANGES, IN_MATRIX = 100_000, 10_000, 2_000, 1_000
LOOKED_UP, MATRIX = 100.0, 2.0
"""µs of the median change; seconds."""


def run(quick: bool) -> list[Row]:
    """All rows."""
    pods, policies = (PODS // 10, POLICIES // 10) if quick else (PODS, POLICIES)
    found = [_measure(pods, policies) for _ in range(1 if quick else 3)]
    of = f"{policies} policies, {pods} pods"
    return [
        Row(f"a pod's label changes: looked up, {of}", _all(found, "change"), "µs", LOOKED_UP, work=judging.PYTHON),
        Row("the same, 99 of 100 are below", _all(found, "slow change"), "µs"),
        Row(f"the policies of a pod, {of}", _all(found, "policies of"), "µs"),
        Row(f"the index from nothing, {of}", _all(found, "start"), "s"),
        Row(f"memory of the index beside that of its objects, {of}", _all(found, "memory"), "MB"),
        Row(f"who reaches whom of {IN_MATRIX} pods, one port", _all(found, "matrix of a port"), "s"),
        Row(f"who reaches whom of {IN_MATRIX} pods, all ports", _all(found, "matrix"), "s", MATRIX, work=judging.PYTHON),
    ]


def _all(found: list[dict[str, float]], name: str) -> list[float]:
    return [one[name] for one in found]


def _measure(pods: int, policies: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.policy_index", str(pods), str(policies)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def _workload(number: int) -> dict[str, str]:
    return {"app.kubernetes.io/instance": f"shop-checkout-{number}"}


def _policies(count: int, workloads: int) -> Iterator[NetworkPolicy]:
    for number in range(count):
        workload = number % workloads
        peers: list[dict[str, Any]] = [
            {"podSelector": {"matchLabels": _workload((workload + slim_pods.NAMESPACES) % workloads)}},
            {
                "namespaceSelector": {"matchLabels": {"team": str(number % 20)}},
                "podSelector": {"matchLabels": {"tier": "backend"}},
            },
        ]
        spec = {"podSelector": {"matchLabels": _workload(workload)}, "ingress": [{"from": peers, "ports": [{"port": "http"}]}]}
        metadata = {"name": f"p{number}", "namespace": f"team-{workload % slim_pods.NAMESPACES}", "uid": str(number)}
        yield NetworkPolicy.from_json(json.dumps({"metadata": metadata, "spec": spec}).encode())


def _relabelled(pod: PodInfo, workload: int) -> PodInfo:
    labels = Labels({**pod.metadata.labels, **_workload(workload)})
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, labels=labels))


def measure(count: int, policies: int) -> dict[str, float]:
    """All figures."""
    pods = [PodInfo.from_json(raw) for raw in slim_pods.pods(count)]
    workloads, chance = count // slim_pods.REPLICAS, random.Random(1)
    known = list(_policies(policies, workloads))
    gc.collect()
    before, began, index = slim_pods.resident(), time.process_time(), PolicyIndex()
    for number in range(slim_pods.NAMESPACES):
        name = f"team-{number}"
        raw = json.dumps({"metadata": {"name": name, "labels": {"team": str(number % 20)}}}).encode()
        index.set_namespace(name, NamespaceInfo.from_json(raw))
    for policy in known:
        index.set_policy(policy.metadata.path, policy)
    for pod in pods:
        index.set_pod(pod.metadata.path, pod)
    found = {"start": time.process_time() - began}
    for peer in (peer for policy in known for rule in policy.ingress or () for peer in rule.peers or ()):
        if isinstance(peer, PodSelector):
            index.use(peer)
    gc.collect()
    found["memory"] = (slim_pods.resident() - before) / 1024
    changed = sorted(_timed(index, pod, _relabelled(pod, chance.randrange(workloads))) for pod in chance.sample(pods, CHANGES))
    found |= {"change": changed[CHANGES // 2] * 1e6, "slow change": changed[CHANGES * 99 // 100] * 1e6}
    began = time.process_time()
    for pod in pods[:CHANGES]:
        index.policies_of(pod.metadata.path)
    found["policies of"] = (time.process_time() - began) / CHANGES * 1e6
    ends = [ends_of(pod)[0] for pod in pods[:IN_MATRIX]]
    for name, asked in (("matrix of a port", ("TCP", 8080)), ("matrix", None)):
        began = time.process_time()
        matrix(ends, index, asked)
        found[name] = time.process_time() - began
    return found


def _timed(index: PolicyIndex, old: PodInfo, new: PodInfo) -> float:
    began = time.process_time()
    index.set_pod(old.metadata.path, new)
    return time.process_time() - began


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
