"""May this pod run on that node: selectors, affinity to nodes, taints. Pure.

Sources: Kubernetes' component-helpers (scheduling/corev1) and the scheduler's plugins nodeaffinity, tainttoleration, nodeunschedulable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from podplane.controllers.objects import Object

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
REFUSING = ("NoSchedule", "NoExecute")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def fits_node(spec: Object, node: Object) -> str:
    """ "", or the scheduler's words for why a pod of this spec may not run on the node."""
    if node.get("spec", {}).get("unschedulable") and not tolerates(spec, {"key": UNSCHEDULABLE, "effect": "NoSchedule"}):
        return "node(s) were unschedulable"
    taint = next((t for t in taints_of(node, *REFUSING) if not tolerates(spec, t)), None)
    if taint is not None:
        return untolerated(taint)
    return "" if is_chosen(spec, node) else "node(s) didn't match Pod's node affinity/selector"


def untolerated(taint: Object) -> str:
    """The scheduler's words for a taint that keeps a pod away."""
    return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"


def taints_of(node: Object, *effects: str) -> Iterator[Object]:
    """The node's taints of these effects."""
    return (taint for taint in node.get("spec", {}).get("taints", ()) if taint.get("effect") in effects)


def tolerates(spec: Object, taint: Object) -> bool:
    """Does one of the pod's tolerations stand this taint?"""
    return any(covers(toleration, taint) for toleration in spec.get("tolerations", ()))


def covers(toleration: Object, taint: Object) -> bool:
    """Does a toleration stand a taint? (ToleratesTaint)"""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def is_chosen(spec: Object, node: Object) -> bool:
    """Do the pod's nodeSelector and its required node affinity choose this node?"""
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in spec.get("nodeSelector", {}).items()):
        return False
    required = (spec.get("affinity", {}).get("nodeAffinity") or {}).get(REQUIRED)
    return required is None or any(matches_term(term, node) for term in required.get("nodeSelectorTerms", ()))


def matches_term(term: Object, node: Object) -> bool:
    """Does a NodeSelectorTerm choose this node? An empty one chooses none."""
    expressions, fields = term.get("matchExpressions", ()), term.get("matchFields", ())
    if not expressions and not fields:
        return False
    labels, names = node["metadata"].get("labels", {}), {"metadata.name": node["metadata"]["name"]}
    return all(_holds(e, labels) for e in expressions) and all(_holds(f, names) for f in fields)


def _holds(requirement: Object, labels: Mapping[str, str]) -> bool:
    own, values = labels.get(requirement["key"]), requirement.get("values", ())
    match requirement.get("operator"):
        case "In":
            return own in values
        case "NotIn":
            return own not in values
        case "Exists":
            return own is not None
        case "DoesNotExist":
            return own is None
        case "Gt" | "Lt" as operator:
            if own is None or len(values) != 1 or not _is_number(own) or not _is_number(values[0]):
                return False
            return int(own) > int(values[0]) if operator == "Gt" else int(own) < int(values[0])
    return False


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 20
