"""The policies of examples/policies: of each flow that one names, the verdict is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from podplane.cli.policy.cluster import cluster
from podplane.cli.policy.judged import judge
from podplane.cli.policy.places import wanted
from tests.unit.cli.policies import KUBE_DNS, NODES, Api, Object, namespace

FOLDER = Path(__file__).parents[3] / "examples" / "policies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "pods")
FLOW = re.compile(r"#   (\S+) → (\S+): (allowed|denied)")


def pods() -> list[Object]:
    """Those of pods.yaml, as they run on the two nodes."""
    found = list(yaml.safe_load_all((FOLDER / "pods.yaml").read_text()))
    for one in found:
        if one["kind"] == "Namespace":  # as the API does
            one["metadata"]["labels"]["kubernetes.io/metadata.name"] = one["metadata"]["name"]
    for number, one in enumerate(one for one in found if one["kind"] == "Pod"):
        node = number % 2 + 1
        one["spec"]["nodeName"] = f"node{node}"
        ips = (f"10.244.{node}.{number + 2}", f"fd00:10:244:{node}::{number + 2}")
        one["status"] = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_flow_fares_as_the_example_says(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    dns = namespace("kube-system", **{"kubernetes.io/metadata.name": "kube-system"})
    known = cluster(Api([*NODES, dns, KUBE_DNS, *pods(), yaml.safe_load(text)]))
    flows = FLOW.findall(text)
    found = {flow: judge(known, wanted(flow[0], "default"), wanted(flow[1], "default"), ()).allowed for flow in flows}
    assert found == {flow: flow[2] == "allowed" for flow in flows}
    assert set(found.values()) == {True, False}


def test_the_list_of_the_readme_is_that_of_the_folder() -> None:
    listed = re.findall(r"\| \[([\w-]+)\.yaml\]\(policies/", (FOLDER.parent / "README.md").read_text())
    assert listed == NAMES
