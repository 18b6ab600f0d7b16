"""A file of objects as what it would change of who may talk to whom. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from podplane.apiserver.decoding import Options, fitted
from podplane.apiserver.kinds.resource import admit, check_name
from podplane.apiserver.kinds.table import DEFINED, RESOURCES
from podplane.apiserver.problems import Problem
from podplane.cli.tables import plain
from podplane.lab.errors import LabError
from podplane.model import bounded_yaml
from podplane.model.cluster_policy import ClusterNetworkPolicy, Policy
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy
from podplane.policy.edits import Edit
from podplane.policy.index import PolicyIndex

Object = dict[str, Any]
MAX_DEPTH, MAX_VALUES = 200, 1_000_000
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
POLICIES: Mapping[str, type[Policy]] = {"NetworkPolicy": NetworkPolicy, "ClusterNetworkPolicy": ClusterNetworkPolicy}
ROWS = {row.kind: row for row in (*RESOURCES, *DEFINED) if row.kind in POLICIES}
KINDS = {kind: row.group_version for kind, row in ROWS.items()} | {"Namespace": "v1", "Pod": "v1"}
"""What is compared, and its apiVersion."""
LABELLED: Mapping[str, type[NamespaceInfo | PodInfo]] = {"Namespace": NamespaceInfo, "Pod": PodInfo}
NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that the API gives each namespace."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The edits, and how many objects of other kinds there are, by kind."""

    edits: tuple[Edit, ...]
    passed_over: Mapping[str, int]


def documents(text: str, name: str) -> list[Object]:
    """The objects in a file of YAML or JSON, those of lists one by one. LabError when there are none."""
    try:
        for _ in bounded_yaml.events(text, MAX_DEPTH, MAX_VALUES):
            pass
        found = [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one is not None]
    except (bounded_yaml.TooDeep, bounded_yaml.TooMany, bounded_yaml.Aliased) as error:
        raise LabError(f"{name} {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise LabError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    objects = [one for document in found for one in _listed(document)]
    for number, one in enumerate(objects, 1):
        if not _is_object(one):
            raise LabError(f"{name}: document {number} is no object: one has a kind, and metadata with a name")
    if not objects:
        raise LabError(f"{name} has no objects")
    return objects


def proposal(
    objects: Sequence[Object], known: Mapping[tuple[str, str], Object], namespace: str, *, delete: bool = False
) -> Proposal:
    """What applying them, or deleting them, would change. `known` has the Namespaces and Pods that are there, by kind and path.

    LabError for a policy that the API would refuse.
    """
    edits = {(edit.kind, edit.path): edit for one in objects for edit in _edits(one, known, namespace, delete=delete)}
    compared = tuple(POLICIES) if delete else tuple(KINDS)
    others = Counter(
        one["kind"] for one in objects if one["kind"] not in compared or KINDS[one["kind"]] != one.get("apiVersion")
    )
    return Proposal(tuple(edits.values()), others)


def check_namespaces(proposal: Proposal, index: PolicyIndex) -> None:
    """LabError when a policy would be in a namespace that neither is there nor in the file."""
    made = {edit.path for edit in proposal.edits if edit.kind is NamespaceInfo}
    for edit in proposal.edits:
        namespace = edit.path.partition("/")[0]
        if edit.kind is NetworkPolicy and namespace not in made and index.namespace(namespace) is None:
            raise LabError(f"NetworkPolicy {plain(edit.path)}: there is no namespace {plain(namespace)}")


def _listed(document: Any) -> Iterator[Any]:
    is_list = isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list)
    yield from document["items"] if is_list else (document,)


def _is_object(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
        return False
    metadata = one.get("metadata")
    return isinstance(metadata, dict) and isinstance(metadata.get("name"), str)


def _edits(one: Object, known: Mapping[tuple[str, str], Object], namespace: str, *, delete: bool) -> Iterator[Edit]:
    kind, name = one["kind"], one["metadata"]["name"]
    if KINDS.get(kind) != one.get("apiVersion"):
        return
    space = one["metadata"].get("namespace") or namespace
    path = f"{space}/{name}" if kind == "Pod" or getattr(ROWS.get(kind), "namespaced", False) else name
    if kind in POLICIES:
        yield Edit(POLICIES[kind], path, None if delete else _policy(one, space))
    elif not delete and (kind == "Namespace" or (kind, path) in known):
        old = known.get((kind, path), {"metadata": {"name": name}})
        labels = _labels(one, old) | ({NAME_LABEL: name} if kind == "Namespace" else {})
        whole = {**old, "metadata": {**old["metadata"], "labels": labels}}
        yield Edit(LABELLED[kind], path, LABELLED[kind].from_json(msgspec.json.encode(whole)))


def _policy(one: Object, namespace: str) -> Policy:
    row = ROWS[one["kind"]]
    where = {"namespace": namespace} if row.namespaced else {}
    try:
        whole = json.loads(json.dumps({**one, "metadata": {**one["metadata"], **where}}, default=str))
        check_name(row, fitted(row, whole, Options(validation="Strict"))["metadata"]["name"])
        admit(row, whole, None)
        return POLICIES[row.kind].from_json(msgspec.json.encode(whole))
    except Problem as problem:
        raise LabError(f"the API would refuse it: {plain(str(problem))}") from None


def _labels(one: Object, old: Object) -> dict[str, str]:
    """The labels that `kubectl apply` leaves: those of the file, and those that are there and were not applied before."""
    new, there = one["metadata"].get("labels") or {}, old["metadata"].get("labels") or {}
    if not isinstance(new, dict) or not all(isinstance(text, str) for pair in new.items() for text in pair):
        raise LabError(f"labels of {one['kind']} {one['metadata']['name']}: keys and values must be strings")
    try:
        applied = json.loads((old["metadata"].get("annotations") or {}).get(APPLIED, "{}"))
        before = (applied.get("metadata") or {}).get("labels") or {}
    except (ValueError, AttributeError):
        before = {}
    return {key: value for key, value in there.items() if key in new or key not in before} | new
