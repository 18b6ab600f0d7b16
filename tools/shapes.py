"""Derive the shapes of the built-in kinds from the published OpenAPI document of Kubernetes.

    python -m tools.shapes swagger.json COMMIT > podplane/apiserver/data/shapes.json

The document is `kubernetes/swagger.json.unprocessed` of the repository kubernetes-client/python (it carries list types and merge
keys). Names, types and the `x-kubernetes-` markers are kept, prose is not; what only the prose says (values, defaults) comes from
`tools.documented`. What no served kind needs is left out.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tools.documented import DOCUMENTED

PREFIX = "#/definitions/"
META, CORE = "io.k8s.apimachinery.pkg.apis.meta.v1.", "io.k8s.api.core.v1."
GROUPS = {
    "io.k8s.api.core.v1.": (
        "Binding ConfigMap Endpoints Event Namespace Node Pod PodTemplate Secret Service ServiceAccount "
        "ConfigMapList EndpointsList EventList NamespaceList NodeList PodList PodTemplateList SecretList ServiceList ServiceAccountList"
    ),
    "io.k8s.api.discovery.v1.": "EndpointSlice EndpointSliceList",
    "io.k8s.api.apps.v1.": (
        "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet "
        "ControllerRevisionList DaemonSetList DeploymentList ReplicaSetList StatefulSetList"
    ),
    "io.k8s.api.batch.v1.": "Job JobList",
    "io.k8s.api.networking.v1.": (
        "Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR "
        "IngressList IngressClassList IPAddressList NetworkPolicyList ServiceCIDRList"
    ),
    "io.k8s.api.coordination.v1.": "Lease LeaseList",
    "io.k8s.api.rbac.v1.": (
        "ClusterRole ClusterRoleBinding Role RoleBinding ClusterRoleList ClusterRoleBindingList RoleList RoleBindingList"
    ),
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.": "CustomResourceDefinition CustomResourceDefinitionList",
    "io.k8s.api.authentication.v1.": "SelfSubjectReview TokenRequest TokenReview",
    "io.k8s.api.authorization.v1.": "SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview",
    "io.k8s.api.autoscaling.v1.": "Scale",
    "io.k8s.api.policy.v1.": "Eviction",
    META: "DeleteOptions Status ListMeta",
}
"""What is served, as names of definitions; all that these refer to comes along."""
KEPT = (
    "type",
    "format",
    "required",
    "enum",
    "default",
    "x-kubernetes-group-version-kind",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
)
WRITTEN_OUT = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"x-kubernetes-int-or-string": True, "format": "int-or-string"},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"format": "quantity", "oneOf": [{"type": "string"}, {"type": "number"}]},
}
"""Definitions that OpenAPI 2 can't express, as version 3 does."""

Schema = dict[str, Any]


def without_prose(schema: Schema) -> Schema:
    """The schema with what is kept of it, all the way down."""
    kept: Schema = {key: schema[key] for key in KEPT if key in schema}
    if "$ref" in schema:
        kept["$ref"] = schema["$ref"]
    if "properties" in schema:
        kept["properties"] = {name: without_prose(inner) for name, inner in sorted(schema["properties"].items())}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            kept[key] = without_prose(schema[key])
    return kept


def referred(schema: Any) -> set[str]:
    """Names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        found = {schema["$ref"].removeprefix(PREFIX)} if isinstance(schema.get("$ref"), str) else set()
        return found.union(*map(referred, schema.values()))
    return set().union(*map(referred, schema)) if isinstance(schema, list) else set()


def closure(definitions: dict[str, Schema]) -> dict[str, Schema]:
    """The served definitions, and all that they refer to."""
    todo = [prefix + name for prefix, names in GROUPS.items() for name in names.split()]
    found: dict[str, Schema] = {}
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = dict(WRITTEN_OUT[name]) if name in WRITTEN_OUT else without_prose(definitions[name])
            todo += referred(found[name])
    return dict(sorted(found.items()))


def add_documented(found: dict[str, Schema], definitions: dict[str, Schema]) -> None:
    """Add what only the prose says. SystemExit names what it does not say."""
    for definition, field, values, default in DOCUMENTED:
        prose = definitions[definition]["properties"][field].get("description", "")
        schema = found[definition]["properties"][field]
        missing = [value for value in values if value not in prose]
        if missing:
            raise SystemExit(f"{definition}.{field}: the document doesn't speak of {', '.join(missing)}")
        if values:
            schema["enum"] = list(values)
        if default is not None:
            schema["default"] = default


def main(source: str, commit: str) -> None:
    """Write the data file to standard output, a definition a line."""
    with open(source, "rb") as file:
        definitions: dict[str, Schema] = json.load(file)["definitions"]
    found = closure(definitions)
    add_documented(found, definitions)
    head = {
        "origin": f"https://github.com/kubernetes-client/python/blob/{commit}/kubernetes/swagger.json.unprocessed",
        "licence": "Apache-2.0, Copyright The Kubernetes Authors",
        "made by": "tools/shapes.py: names, types and markers, without the prose",
        "kubernetes": "1.36",
    }
    lines = [f"{json.dumps(name)}: {json.dumps(schema, separators=(',', ':'))}" for name, schema in found.items()]
    text = json.dumps(head, indent=0)[:-2] + ',\n"definitions": {\n' + ",\n".join(lines) + "\n}}"
    json.loads(text)
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
