"""Derive what the API says of ClusterNetworkPolicies from the CustomResourceDefinition that network-policy-api publishes.

    python -m tools.cluster_policies clusternetworkpolicies.yaml COMMIT > podplane/apiserver/data/clusternetworkpolicies.json

The file is that of the experimental channel, `config/crd/experimental` of the repository kubernetes-sigs/network-policy-api: it has all
that the standard one has. Names, types, bounds and markers are kept, prose is not.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml

ORIGIN = "https://github.com/kubernetes-sigs/network-policy-api/blob/{}/config/crd/experimental"


def without_prose(value: Any) -> Any:
    """The same without descriptions; a property that is called so stays."""
    if isinstance(value, list):
        return [without_prose(one) for one in value]
    if isinstance(value, dict):
        return {key: without_prose(one) for key, one in value.items() if key != "description" or isinstance(one, dict)}
    return value


def main() -> None:
    """Write it to the standard output."""
    path, commit = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        definition = yaml.safe_load(file)
    found = {
        "origin": ORIGIN.format(commit),
        "licence": "Apache-2.0, Copyright The Kubernetes Authors",
        "made by": "tools/cluster_policies.py: names, types, bounds and markers, without the prose",
        "definition": without_prose(definition),
    }
    json.dump(found, sys.stdout, indent=0, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
