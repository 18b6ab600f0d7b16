"""Every field of a pod that the API takes is read, told to make no difference, or refused: this table says which of those that nothing
reads are which, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import podplane
from podplane.apiserver import shapes
from podplane.kernel.ids import Ids
from podplane.model import pod as model
from podplane.model.objects import Model
from podplane.model.pod import Pod
from podplane.runtime import environment, pod_fields, volumes
from podplane.runtime.environment import ConfigError, Facts

CORE = "io.k8s.api.core.v1."
MODELS = {
    "ConfigMapEnvSource": "SourceName",
    "ConfigMapKeySelector": "KeySelector",
    "ConfigMapProjection": "ConfigMapVolume",
    "ConfigMapVolumeSource": "ConfigMapVolume",
    "DownwardAPIProjection": "DownwardVolume",
    "DownwardAPIVolumeFile": "DownwardFile",
    "DownwardAPIVolumeSource": "DownwardVolume",
    "EmptyDirVolumeSource": "EmptyDir",
    "EphemeralContainer": "Container",
    "GRPCAction": "Grpc",
    "HTTPGetAction": "HttpGet",
    "HTTPHeader": "HttpHeader",
    "HostPathVolumeSource": "HostPath",
    "LifecycleHandler": "Handler",
    "PodDNSConfig": "DnsConfig",
    "PodDNSConfigOption": "DnsOption",
    "PodReadinessGate": "ReadinessGate",
    "ProjectedVolumeSource": "ProjectedVolume",
    "SecretEnvSource": "SourceName",
    "SecretKeySelector": "KeySelector",
    "SecretProjection": "SecretVolume",
    "SecretVolumeSource": "SecretVolume",
    "ServiceAccountTokenProjection": "TokenProjection",
    "SleepAction": "Sleep",
    "Sysctl": "PodSysctl",
    "TCPSocketAction": "TcpSocket",
    "VolumeProjection": "Projection",
}
"""Definitions of the API whose class has another name."""
CONTROLLERS = "controllers read it"
API = "the API acts on it, or refuses it"
IMAGES = "there is no registry (docs/pods.md)"
WHOLE = "it is done whatever it says: what it allows is never needed, what it asks for is always so"
REFUSED = "the pod waits, and an event says why"
KIND = f"{REFUSED}: a volume of a kind that a lab doesn't have"
TOLD = "told with the field above it"
UNREAD = {
    "Container.imagePullPolicy": IMAGES,
    "Container.resizePolicy": "nothing resizes: there is no pods/resize",
    "Container.volumeDevices": KIND,
    "EnvVarSource.fileKeyRef": REFUSED,
    "ObjectFieldSelector.apiVersion": "there is one",
    "PodSpec.affinity": CONTROLLERS,
    "PodSpec.automountServiceAccountToken": API,
    "PodSpec.hostUsers": WHOLE,
    "PodSpec.imagePullSecrets": IMAGES,
    "PodSpec.nodeSelector": CONTROLLERS,
    "PodSpec.overhead": CONTROLLERS,
    "PodSpec.preemptionPolicy": WHOLE,
    "PodSpec.schedulerName": CONTROLLERS,
    "PodSpec.schedulingGates": CONTROLLERS,
    "PodSpec.serviceAccount": API,
    "PodSpec.tolerations": CONTROLLERS,
    "PodSpec.topologySpreadConstraints": CONTROLLERS,
    "AppArmorProfile.localhostProfile": TOLD,
    "VolumeMount.recursiveReadOnly": WHOLE,
    "VolumeProjection.clusterTrustBundle": REFUSED,
    "VolumeProjection.podCertificate": REFUSED,
    **{
        f"Volume.{kind}": KIND
        for kind in (
            *(
                "awsElasticBlockStore",
                "azureDisk",
                "azureFile",
                "cephfs",
                "cinder",
                "csi",
                "ephemeral",
                "fc",
                "flexVolume",
                "flocker",
            ),
            *(
                "gcePersistentDisk",
                "gitRepo",
                "glusterfs",
                "image",
                "iscsi",
                "nfs",
                "persistentVolumeClaim",
                "photonPersistentDisk",
            ),
            *("portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume"),
        )
    },
}
"""Fields that no class of the runtime has."""
UNTYPED = {
    "ContainerRestartRule",
    "ContainerRestartRuleOnExitCodes",
    "PodOS",
    "PodResourceClaim",
    "PodSchedulingGroup",
    "ResourceClaim",
    "ResourceRequirements",
    "SELinuxOptions",
    "WindowsSecurityContextOptions",
}
"""Definitions of fields that a class has as a dict."""


def definitions() -> dict[str, dict[str, Any]]:
    """What a PodSpec is made of, as far as nobody says that it is not read."""
    known: dict[str, Any] = shapes.data()["definitions"]
    found: dict[str, dict[str, Any]] = {}
    todo = ["PodSpec"]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = known[CORE + name].get("properties", {})
        for field, schema in found[name].items():
            if _path(name, field) not in UNREAD:
                todo += [ref.removeprefix(CORE) for ref in _refs(schema) if ref.startswith(CORE)]
    return found


def _path(name: str, field: str) -> str:
    """The fields of an ephemeral container are those of any."""
    return f"{'Container' if name == 'EphemeralContainer' else name}.{field}"


def _refs(schema: dict[str, Any]) -> Iterator[str]:
    for part in (schema, schema.get("items", {}), schema.get("additionalProperties", {})):
        if isinstance(part, dict) and "$ref" in part:
            yield part["$ref"].removeprefix("#/definitions/")


def model_of(name: str) -> type[Model] | None:
    found: type[Model] | None = getattr(model, MODELS.get(name, name), None)
    return found


def test_what_nobody_reads_is_in_the_table_and_nothing_else() -> None:
    unread, untyped = set(), set()
    for name, fields in definitions().items():
        if (kind := model_of(name)) is None:
            untyped.add(name)
            continue
        unread |= {_path(name, field) for field in fields.keys() - {f.encode_name for f in msgspec.structs.fields(kind)}}
    assert sorted(unread) == sorted(UNREAD)
    assert untyped == UNTYPED


def test_what_a_class_has_is_read_somewhere() -> None:
    files = [p for p in Path(podplane.__file__).parent.rglob("*.py") if p.name != "pod.py" or "model" not in p.parts]
    words = {word for p in files for word in re.findall(r"\w+", p.read_text())}
    for name in definitions():
        for field in msgspec.structs.fields(kind) if (kind := model_of(name)) is not None else ():
            assert field.name in words, f"{name}.{field.name}"


def told(spec: dict[str, Any] | None = None, **container: Any) -> list[str]:
    whole = {"containers": [{"name": "main", **container}], **(spec or {})}
    return [
        sentence
        for _, sentence in pod_fields.told(
            msgspec.convert({"spec": whole}, Pod), ("cpu", "memory"), Ids(), shows_processes=False
        )
    ]


@pytest.mark.parametrize(
    ("spec", "container", "start"),
    [
        ({"priorityClassName": "high", "priority": 7}, {}, "priorityClassName high is not applied"),
        ({"priority": 7}, {}, "priority 7 is not applied"),
        ({"runtimeClassName": "gvisor"}, {}, "runtimeClassName gvisor is not applied"),
        ({"resources": {"limits": {"cpu": "1"}}}, {}, "resources of the pod are not applied"),
        ({"schedulingGroup": {"podGroupName": "g"}}, {}, "schedulingGroup is not applied"),
        ({"securityContext": {"fsGroupChangePolicy": "Always"}}, {}, "fsGroupChangePolicy Always is not applied"),
        ({"securityContext": {"seLinuxChangePolicy": "Recursive"}}, {}, "seLinuxChangePolicy Recursive is not applied"),
        ({"securityContext": {"windowsOptions": {"hostProcess": False}}}, {}, "windowsOptions are not applied"),
        ({}, {"securityContext": {"windowsOptions": {"runAsUserName": "x"}}}, "container main: windowsOptions are not applied"),
        ({}, {"restartPolicyRules": [{"action": "Restart"}]}, "container main: restartPolicyRules are not applied"),
        ({}, {"restartPolicy": "Never"}, "container main: restartPolicy Never is not applied"),
        (
            {},
            {"volumeMounts": [{"name": "v", "mountPath": "/data", "mountPropagation": "Bidirectional"}]},
            "container main: mountPropagation Bidirectional of /data is not applied",
        ),
    ],
)
def test_what_makes_no_difference_is_told(spec: dict[str, Any], container: dict[str, Any], start: str) -> None:
    (line,) = told(spec, **container)
    assert line.startswith(f"{start}: ")


@pytest.mark.parametrize(
    "name", [f"kubernetes.io/{way}-bandwidth" for way in ("ingress", "egress")] + ["k8s.v1.cni.cncf.io/networks"]
)
def test_annotations_of_the_network_are_told_of_pods_in_the_nodes_own(name: str) -> None:
    for on_host in (True, False):
        body = {"metadata": {"name": "a", "annotations": {name: "10M"}}, "spec": {"hostNetwork": on_host}}
        told = list(pod_fields.not_applied(msgspec.convert(body, Pod)))
        assert told == ([f"annotation {name} is not applied: the pod is in the node's own network"] if on_host else [])


def test_a_limit_that_makes_no_sense_is_why_a_pod_is_refused() -> None:
    body = {"metadata": {"name": "a", "annotations": {"kubernetes.io/ingress-bandwidth": "fast"}}}
    assert pod_fields.why_refused(msgspec.convert(body, Pod)).startswith("annotation kubernetes.io/ingress-bandwidth: 'fast'")


def test_what_asks_for_nothing_is_not_told() -> None:
    mount = {"name": "v", "mountPath": "/data", "mountPropagation": "None", "recursiveReadOnly": "Enabled"}
    spec = {
        "priority": 0,
        "preemptionPolicy": "Never",
        "hostUsers": False,
        "securityContext": {"supplementalGroupsPolicy": "Merge"},
    }
    assert told(spec, volumeMounts=[mount], imagePullPolicy="Always") == []


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"os": {"name": "windows"}}, "its os is windows, and nodes of a lab run linux"),
        ({"os": {"name": "linux"}}, ""),
        ({"resourceClaims": [{"name": "gpu"}]}, "it claims devices (resourceClaims), and a lab has none"),
        (
            {"containers": [{"name": "a", "lifecycle": {"stopSignal": "getsignal"}}]},
            "container a: stopSignal 'getsignal' is not known",
        ),
        ({"containers": [{"name": "a", "lifecycle": {"stopSignal": "SIGRTMIN+3"}}]}, ""),
    ],
)
def test_what_makes_no_sense_in_a_lab_is_refused(spec: dict[str, Any], why: str) -> None:
    assert pod_fields.why_refused(msgspec.convert({"spec": spec}, Pod)) == why


@pytest.mark.parametrize(
    ("name", "number"), [("", 15), ("SIGTERM", 15), ("SIGUSR1", 10), ("SIGRTMIN+3", 37), ("SIGRTMAX-14", 50)]
)
def test_the_signal_that_asks_a_container_to_end(name: str, number: int) -> None:
    assert pod_fields.stop_signal(msgspec.convert({"name": "a", "lifecycle": {"stopSignal": name}}, model.Container)) == number
    assert pod_fields.stop_signal(model.Container("a")) == 15


def test_sources_that_nobody_knows_are_refused() -> None:
    sources = [{"clusterTrustBundle": {"path": "x"}}]
    pod = msgspec.convert(
        {
            "spec": {
                "containers": [{"name": "main", "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "k"}}}]}],
                "volumes": [{"name": "v", "projected": {"sources": sources}}],
            }
        },
        Pod,
    )
    facts = Facts((), (), {}, {})
    with pytest.raises(ConfigError, match="variable A: its source is of a kind that a lab doesn't have"):
        environment.variables(pod, pod.spec.containers[0], facts)
    with pytest.raises(ConfigError, match="volume 'v' has a source of a kind that a lab doesn't have"):
        volumes.files_of(pod, pod.spec.volumes[0], facts, lambda _: "")
