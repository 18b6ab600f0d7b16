"""What a planner's cache of a large cluster costs: memory for each pod, and how fast pods are decoded, beside the kubelet's whole model.

The pods are as the API sends them: some 3 KB of JSON each, six labels (four of the workload, one of its revision, one of the pod's own).
A process of its own decodes them into a cache with the indices that planners use, so that what else there is in memory doesn't count.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.common import Row
from podplane.kubeapi.cache import Cache
from podplane.model.pod import Pod
from podplane.model.pod_info import PodInfo

PODS, DECODED, REPLICAS, NODES, NAMESPACES = 100_000, 10_000, 20, 5_000, 200
MEMORY, RATIO = 1.024, 0.8
"""KB a pod: 100 MB for 100,000. Pods decoded a second, as a multiple of the whole model."""


def run(quick: bool) -> list[Row]:
    """All rows."""
    count = PODS // 10 if quick else PODS
    found = [_measure(count) for _ in range(1 if quick else 3)]
    kilobytes = [one["kilobytes"] for one in found]  # of few pods, the tables of shared texts are a large part: no must
    return [
        Row(f"{count} pods in a planner's cache, memory of each", kilobytes, "KB", None if quick else MEMORY),
        Row(f"pods of {found[0]['size']:.0f} bytes decoded for planners", [one["slim"] for one in found], "/s"),
        Row("pods decoded for planners, to the whole model", [one["slim"] / one["whole"] for one in found], "x", RATIO, True),
    ]


def _measure(count: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "bench.slim_pods", str(count)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def pods(count: int) -> Iterator[bytes]:
    """So many pods as JSON."""
    for number in range(count):
        yield json.dumps(pod(number), separators=(",", ":")).encode()


def pod(number: int) -> dict[str, Any]:
    """A pod of a workload with `REPLICAS` replicas, as a cluster has it."""
    workload, host = number // REPLICAS, number % NODES
    name, revision = f"shop-checkout-{workload}", f"{workload * 2654435761 % 2**32:08x}"
    labels = {
        "app.kubernetes.io/name": "checkout",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/part-of": "shop",
        "tier": "backend",
        "pod-template-hash": revision,
        "example.com/shard": f"shard-{number}",
    }
    ips = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"fd00:10::{number >> 16:x}:{number & 0xFFFF:x}"]
    times = {"lastProbeTime": None, "lastTransitionTime": "2026-11-20T10:00:00Z"}
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    probe = {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "failureThreshold": 3}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": f"{name}-{revision}-{number:05x}",
            "generateName": f"{name}-{revision}-",
            "namespace": f"team-{workload % NAMESPACES}",
            "uid": str(uuid.UUID(int=number * 2**64 + 7)),
            "resourceVersion": str(10**6 + number),
            "creationTimestamp": "2026-11-20T10:00:00Z",
            "labels": labels,
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": revision * 8},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-{revision}", "uid": revision}],
        },
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example.com/shop/checkout@sha256:" + revision * 8,
                    "ports": [
                        {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                    ],
                    "env": [{"name": f"SETTING_{i}", "value": f"value of setting {i}"} for i in range(10)],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                    "readinessProbe": probe,
                    "livenessProbe": probe,
                    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets", "readOnly": True}],
                }
            ],
            "nodeName": f"ip-10-1-{host >> 8}-{host & 255}.eu-central-1.compute.internal",
            "serviceAccountName": "checkout",
            "restartPolicy": "Always",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            ],
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": kind, "status": "True", **times} for kind in kinds],
            "hostIP": f"10.1.{host >> 8}.{host & 255}",
            "podIP": ips[0],
            "podIPs": [{"ip": ip} for ip in ips],
            "startTime": "2026-11-20T10:00:00Z",
            "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0, "imageID": revision * 8, "started": True}],
        },
    }


def resident() -> float:
    """Resident memory of this process in KB."""
    return float(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def memory(count: int) -> float:
    """KB of each of so many pods in a cache with two indices."""
    cache: Cache[PodInfo] = Cache("pods")
    cache.index(lambda found: found.ips)
    cache.index(lambda found: (found.metadata.namespace,))
    gc.collect()
    before = resident()
    for raw in pods(count):  # one after the other: the JSON is not kept
        cache.set(PodInfo.from_json(raw))
    gc.collect()
    return (resident() - before) / count


def rate(decode: Callable[[bytes], object], raws: list[bytes]) -> float:
    """Pods decoded in a second of this process' time."""
    began = time.process_time()
    kept = list(map(decode, raws))
    return len(kept) / (time.process_time() - began)


def measure(count: int) -> dict[str, float]:
    """All figures."""
    kilobytes, raws = memory(count), list(pods(DECODED))
    rates = {"slim": rate(PodInfo.from_json, raws), "whole": rate(msgspec.json.Decoder(Pod).decode, raws)}
    return {"kilobytes": kilobytes, "size": sum(map(len, raws)) / DECODED, **rates}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
