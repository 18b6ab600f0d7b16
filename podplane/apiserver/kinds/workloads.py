"""Deployment, ReplicaSet, DaemonSet, StatefulSet: defaults and rules (apps/validation)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from podplane.apiserver.kinds import names
from podplane.apiserver.kinds.pods import check_template, check_template_metadata, complete_pod_spec
from podplane.apiserver.problems import Cause
from podplane.controllers.objects import matches

Object = dict[str, Any]
DAEMON_SETS, TEMPLATE_GENERATION = "daemonsets.apps", "deprecated.daemonset.template.generation"


def complete_template(object_: Object) -> Object:
    """Defaults of the pods that it runs; its spec."""
    spec: Object = object_.setdefault("spec", {})
    inner = spec.get("template", {}).get("spec")
    if inner is not None:
        complete_pod_spec(inner)
    return spec


def complete_pod_template(pod_template: Object) -> None:
    """Defaults."""
    if "spec" in pod_template.get("template", {}):
        complete_pod_spec(pod_template["template"]["spec"])


def check_pod_template(new: Object, _: Object | None) -> Iterator[Cause]:
    """A template whose pods may restart by any policy."""
    yield from check_template(new.get("template", {}), "template", ("Always", "OnFailure", "Never"))


def _rolling(strategy: Object, **defaults: Any) -> None:
    """What a rolling update does unless it is said."""
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        for name, value in defaults.items():
            rolling.setdefault(name, value)


def complete_deployment(deployment: Object) -> None:
    """Defaults."""
    spec = complete_template(deployment)
    _rolling(spec.setdefault("strategy", {}), maxUnavailable="25%", maxSurge="25%")


def complete_replica_set(replica_set: Object) -> None:
    """Defaults."""
    complete_template(replica_set)


def complete_daemon_set(daemon_set: Object) -> None:
    """Defaults."""
    spec = complete_template(daemon_set)
    _rolling(spec.setdefault("updateStrategy", {}), maxUnavailable=1, maxSurge=0)


def count_templates(new: Object, old: Object | None) -> None:
    """The number of a DaemonSet's template, in an annotation that the server alone writes (its strategy, and conversion of apps/v1)."""
    number = 1
    if old is not None:
        before = old["metadata"].get("annotations", {}).get(TEMPLATE_GENERATION, "0")
        known = int(before) if re.fullmatch("[0-9]{1,18}", before) else 0  # before the server counted, it was anybody's
        number = known + (old["spec"].get("template") != new["spec"].get("template"))
    new["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(number)


def complete_stateful_set(stateful_set: Object) -> None:
    """Defaults."""
    spec = complete_template(stateful_set)
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        strategy.setdefault("rollingUpdate", {})
    if strategy["type"] == "RollingUpdate" and "rollingUpdate" in strategy:
        strategy["rollingUpdate"].setdefault("partition", 0)
    for claim in spec.get("volumeClaimTemplates", ()):
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")


TemplateRule = Callable[[Object, str, tuple[str, ...]], Iterator[Cause]]


def check_selected(
    spec: Object, policies: tuple[str, ...] = ("Always",), check: TemplateRule = check_template
) -> Iterator[Cause]:
    """A selector that isn't empty and chooses the template's pods; replicas that can be."""
    selector, template = spec.get("selector", {}), spec.get("template", {})
    yield from names.check_selector(selector, "spec.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions") and "selector" in spec:
        yield Cause.invalid("spec.selector", selector, "an empty selector would choose all pods")
    labels = template.get("metadata", {}).get("labels", {})
    if "selector" in spec and not matches(selector, labels):
        yield Cause.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if "template" in spec:
        yield from check(template, "spec.template", policies)
    for field in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        if spec.get(field, 0) < 0:
            yield Cause.invalid(f"spec.{field}", spec[field], "must be greater than or equal to 0")


def check_workload(object_: Object, old: Object | None, check: TemplateRule = check_template) -> Iterator[Cause]:
    """What all that run pods for ever have in common; the selector stays as it is."""
    spec = object_["spec"]
    yield from check_selected(spec, check=check)
    if "activeDeadlineSeconds" in spec.get("template", {}).get("spec", {}):
        kind = object_.get("kind", "this kind")
        yield Cause.forbidden("spec.template.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported")
    if old is not None and old["spec"].get("selector") != spec.get("selector"):
        yield Cause.immutable("spec.selector", spec.get("selector"))
    strategy, path = (
        (spec["strategy"], "strategy") if "strategy" in spec else (spec.get("updateStrategy", {}), "updateStrategy")
    )
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        yield Cause.forbidden(f"spec.{path}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    rolling = strategy.get("rollingUpdate", {}) if strategy.get("type") == "RollingUpdate" else {}
    for field in ("maxUnavailable", "maxSurge"):
        if field in rolling:
            yield from _check_share(rolling[field], f"spec.{path}.rollingUpdate.{field}")
    if _is_zero(rolling.get("maxUnavailable", 1)) and _is_zero(rolling.get("maxSurge", 1)):
        yield Cause.invalid(f"spec.{path}.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")


def _is_zero(share: Any) -> bool:
    return share in (0, "0%", "0")


PERCENT = re.compile("[0-9]{1,18}%")


def _check_share(share: Any, path: str) -> Iterator[Cause]:
    """A number, or a percentage."""
    if isinstance(share, str):
        if not PERCENT.fullmatch(share):
            yield Cause.invalid(path, share, "a valid percent string must be a numeric string followed by an ending '%'")
    elif share < 0:
        yield Cause.invalid(path, share, "must be greater than or equal to 0")


RETENTIONS = ("Retain", "Delete")
CHANGEABLE = (
    *("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "minReadySeconds"),
    "persistentVolumeClaimRetentionPolicy",
)


def check_stateful_set(object_: Object, old: Object | None) -> Iterator[Cause]:
    """StatefulSet: most of its spec stays. What its pods run is looked at when they are made (ValidatePodTemplateSpecForStatefulSet):
    a pod gets its volumes from the claim templates, too.
    """
    yield from check_workload(object_, old, check_template_metadata)
    strategy = object_["spec"].get("updateStrategy", {})
    if strategy.get("type") == "OnDelete" and "rollingUpdate" in strategy:
        why = "only allowed for updateStrategy 'RollingUpdate'"
        yield Cause.invalid("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"], why)
    start = object_["spec"].get("ordinals", {}).get("start", 0)
    if start < 0:
        yield Cause.invalid("spec.ordinals.start", start, "must be greater than or equal to 0")
    retention = object_["spec"].get("persistentVolumeClaimRetentionPolicy", {})
    for field in ("whenDeleted", "whenScaled"):
        if retention.get(field, "Retain") not in RETENTIONS:
            yield Cause.unsupported(f"spec.persistentVolumeClaimRetentionPolicy.{field}", retention[field], RETENTIONS)
    if old is None:
        return
    before, after = old["spec"], object_["spec"]
    for field in sorted(before.keys() | after.keys()):
        if field not in CHANGEABLE and field != "selector" and before.get(field) != after.get(field):
            yield Cause.forbidden(
                "spec", f"updates to statefulset spec for fields other than {', '.join(CHANGEABLE)} are forbidden: {field}"
            )
