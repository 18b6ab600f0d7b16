"""What every new pod gets: a ServiceAccount and its token as a volume, and tolerations of nodes that fail for a short time. Pure.

Sources: kube-apiserver's admission plugins ServiceAccount, DefaultTolerationSeconds and Priority.
"""

from __future__ import annotations

from typing import Any

from podplane.apiserver.problems import Problem

Object = dict[str, Any]
DEFAULT_ACCOUNT = "default"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS, TOLERATION_SECONDS = 3607, 300
SUFFIX_LENGTH = 5
FAILING = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def complete(pod: Object, account: Object | None) -> None:
    """Complete a new pod; `account` is its ServiceAccount, None when there is none of that name. Problem when there must be."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    name = spec.setdefault("serviceAccountName", DEFAULT_ACCOUNT) or DEFAULT_ACCOUNT
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    if account is None and name != DEFAULT_ACCOUNT:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise Problem("Forbidden", f'pods "{pod["metadata"]["name"]}" is forbidden: {why}')
    if spec.get("automountServiceAccountToken", (account or {}).get("automountServiceAccountToken", True)):
        _mount_token(pod)
    for key, value in (("enableServiceLinks", True), ("priority", 0), ("preemptionPolicy", "PreemptLowerPriority")):
        spec.setdefault(key, value)
    _tolerate(spec)


def _mount_token(pod: Object) -> None:
    """The volume, and its mount in each container that has nothing else there."""
    spec = pod["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    lacking = [c for c in containers if TOKEN_PATH not in (mount["mountPath"] for mount in c.get("volumeMounts", ()))]
    volumes = spec.setdefault("volumes", [])
    if not lacking or any(volume["name"].startswith("kube-api-access-") for volume in volumes):
        return
    name = f"kube-api-access-{pod['metadata']['uid'][-SUFFIX_LENGTH:]}"
    volumes.append({"name": name, "projected": {"defaultMode": 420, "sources": _sources()}})
    for container in lacking:
        container.setdefault("volumeMounts", []).append({"name": name, "mountPath": TOKEN_PATH, "readOnly": True})


def _sources() -> list[Object]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]


def _tolerate(spec: Object) -> None:
    tolerations = spec.setdefault("tolerations", [])
    for key in FAILING:
        if not any(_covers(toleration, key) for toleration in tolerations):
            made = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}
            tolerations.append(made)


def _covers(toleration: Object, key: str) -> bool:
    """Does the pod say itself how long it stands this taint?"""
    return toleration.get("effect", "") in ("", "NoExecute") and toleration.get("key", "") in ("", key)
