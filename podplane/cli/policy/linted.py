"""Mistakes in the policies of a cluster, and of a file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podplane.cli.policy.cluster import Cluster
from podplane.model.cluster_policy import Policy
from podplane.policy.edits import Edit, tried
from podplane.policy.findings import Finding
from podplane.policy.lint import Linter


def of_namespace(cluster: Cluster, namespace: str) -> list[Finding]:
    """Those in the policies of a namespace, or of all (""), and in those of the whole cluster, in the order of their tiers."""
    linter = Linter(cluster)
    policies = sorted(cluster.index.policies.values(), key=lambda one: one.order)
    looked_at = (one for one in policies if namespace in ("", one.metadata.namespace) or not one.metadata.namespace)
    return [found for one in looked_at for found in linter.of(one)]


def of_file(cluster: Cluster, edits: Sequence[Edit]) -> list[Finding]:
    """Those that the policies of a file would have in this cluster."""
    with tried(cluster.index, edits):
        linter = Linter(cluster)
        policies = [edit.new for edit in edits if isinstance(edit.new, Policy)]
        return [one for policy in policies for one in linter.of(policy)]


def document(found: Sequence[Finding]) -> dict[str, Any]:
    """For programs."""
    return {"findings": [_document(one) for one in found]}


def _document(one: Finding) -> dict[str, str]:
    metadata, where = one.policy.metadata, {"rule": one.where} if one.where else {}
    return {"namespace": metadata.namespace, "name": metadata.name, **where, "mistake": str(one.mistake), "text": one.text}
