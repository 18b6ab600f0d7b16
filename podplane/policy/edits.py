"""Changes of objects that are tried out on an index of policies, and taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from podplane.model.cluster_policy import ClusterNetworkPolicy, Policy
from podplane.model.pod_info import NamespaceInfo, PodInfo
from podplane.model.policy import NetworkPolicy, PodSelector
from podplane.policy.index import PolicyIndex

Edited = Policy | NamespaceInfo | PodInfo
POLICIES: tuple[type[Edited], ...] = (NetworkPolicy, ClusterNetworkPolicy)


class Edit(NamedTuple):
    """An object as it would be; None of one that would be gone. `kind` says what is of that path."""

    kind: type[Edited]
    path: str
    new: Edited | None


@contextlib.contextmanager
def tried(index: PolicyIndex, edits: Sequence[Edit]) -> Iterator[None]:
    """The index as it would be, within; afterwards it is as it was."""
    undo = [Edit(edit.kind, edit.path, _former(index, edit)) for edit in edits]
    try:
        for edit in edits:
            _set(index, edit)
        yield
    finally:
        for edit in reversed(undo):
            _set(index, edit)


def subjects(index: PolicyIndex, edits: Sequence[Edit]) -> set[str]:
    """The pods, by path, that flows come from or go to whose verdicts may be others: asked before the edits, and after them."""
    return {path for edit in edits for path in _subjects(index, edit)}


def _subjects(index: PolicyIndex, edit: Edit) -> Iterator[str]:
    if edit.kind in POLICIES:
        for policy in (index.policy(edit.path), edit.new):
            if isinstance(policy, Policy):
                yield from (pod.metadata.path for pod in index.selected(policy))
    elif edit.kind is NamespaceInfo:
        yield from (pod.metadata.path for pod in index.members(PodSelector(edit.path)))
    else:
        yield edit.path


def _former(index: PolicyIndex, edit: Edit) -> Edited | None:
    if edit.kind in POLICIES:
        return index.policy(edit.path)
    return index.namespace(edit.path) if edit.kind is NamespaceInfo else index.pod(edit.path)


def _set(index: PolicyIndex, edit: Edit) -> None:
    match edit.kind, edit.new:
        case _, NetworkPolicy() | ClusterNetworkPolicy() as policy:
            index.set_policy(edit.path, policy)
        case _, NamespaceInfo() as namespace:
            index.set_namespace(edit.path, namespace)
        case _, PodInfo() as pod:
            index.set_pod(edit.path, pod)
        case kind, _ if kind in POLICIES:
            index.set_policy(edit.path, None)
        case kind, _ if kind is NamespaceInfo:
            index.set_namespace(edit.path, None)
        case _:
            index.set_pod(edit.path, None)
