"""Mistakes in the policies of a cluster, and of a file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podplane.cli.policy.cluster import Cluster
from podplane.model.policy import NetworkPolicy
from podplane.policy.edits import Edit, tried
from podplane.policy.lint import Finding, Linter


def of_namespace(cluster: Cluster, namespace: str) -> list[Finding]:
    """Those in the policies of a namespace, or of all ("")."""
    linter = Linter(cluster)
    policies = (policy for _, policy in sorted(cluster.index.policies.items()) if isinstance(policy, NetworkPolicy))
    return [one for policy in policies if namespace in ("", policy.metadata.namespace) for one in linter.of(policy)]


def of_file(cluster: Cluster, edits: Sequence[Edit]) -> list[Finding]:
    """Those that the policies of a file would have in this cluster."""
    with tried(cluster.index, edits):
        linter = Linter(cluster)
        policies = [edit.new for edit in edits if isinstance(edit.new, NetworkPolicy)]
        return [one for policy in policies for one in linter.of(policy)]


def document(found: Sequence[Finding]) -> dict[str, Any]:
    """For programs."""
    return {"findings": [_document(one) for one in found]}


def _document(one: Finding) -> dict[str, str]:
    namespace, _, name = one.policy.partition("/")
    where = {"rule": one.where} if one.where else {}
    return {"namespace": namespace, "name": name, **where, "mistake": str(one.mistake), "text": one.text}
