"""What made a pod, as far as its labels and its name say it: pods of one workload are named together, and so are pods that nothing made
and that have the same label."""

from __future__ import annotations

from podplane.model.pod_info import PodInfo

TEMPLATE, REVISION, JOB = "pod-template-hash", "controller-revision-hash", "batch.kubernetes.io/job-name"
"""Labels that controllers give their pods: of ReplicaSets, of StatefulSets and DaemonSets, of Jobs."""

NAMING = ("app.kubernetes.io/name", "app", "k8s-app", "run")
"""Labels by which people tell their pods apart, the first that a pod has."""


def alike(pod: PodInfo) -> str:
    """What pods that nothing made are named together by: `(run=echo)`."""
    labels = pod.metadata.labels
    key = next((key for key in NAMING if key in labels), None)
    if key is not None:
        return f"({key}={labels[key]})"
    return f"({', '.join(f'{key}={labels[key]}' for key in sorted(labels))})" if labels else "(no labels)"


def owner(pod: PodInfo) -> str:
    """The name of the Deployment, StatefulSet, DaemonSet or Job that a pod is of; its own name when it is of none."""
    labels, name = pod.metadata.labels, pod.metadata.name
    if template := labels.get(TEMPLATE):
        workload, found, _ = name.rpartition(f"-{template}-")
        return workload if found else name
    if job := labels.get(JOB):
        return job if name.startswith(f"{job}-") else name
    return (name.rpartition("-")[0] or name) if REVISION in labels else name
