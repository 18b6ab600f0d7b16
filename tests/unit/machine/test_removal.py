"""What takes podplane from a cluster: made of what is installed there, and nothing of others."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest
import yaml

from podplane.agent import peer_condition
from podplane.controllers import node_block
from podplane.machine import rbac, removal
from podplane.model.config import BACKENDS, NOT_READY
from tools import manifests


def installed(path: Any, kind: str, name: str) -> dict[str, Any]:
    """An object of a file in deploy/."""
    found = yaml.safe_load_all(path.read_text())
    return next(one for one in found if one["kind"] == kind and one["metadata"]["name"] == name)


AGENTS = installed(manifests.DEPLOY, "DaemonSet", removal.AGENT)


def test_what_cleans_nodes_is_what_the_chart_makes_for_that() -> None:
    assert removal.daemonset(AGENTS, detach=False) == installed(manifests.UNINSTALL, "DaemonSet", removal.UNINSTALL)


def test_it_has_the_image_the_folders_and_the_nodes_of_the_agents() -> None:
    agents = copy.deepcopy(AGENTS)
    spec = agents["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"network": "podplane"}
    spec["imagePullSecrets"] = [{"name": "registry"}]
    spec["volumes"].append({"name": "kube-api-access", "projected": {}})
    for container in (*spec["containers"], *spec["initContainers"]):
        container["image"] = "registry.example.com/podplane:1"
    spec["initContainers"][0]["args"][-1] = "--bin-dir=/usr/libexec/cni"
    made = removal.daemonset(agents, detach=True)["spec"]["template"]["spec"]
    assert made["nodeSelector"] == {"network": "podplane"} and made["imagePullSecrets"] == [{"name": "registry"}]
    assert {one["image"] for one in (*made["containers"], *made["initContainers"])} == {"registry.example.com/podplane:1"}
    assert [one["args"] for one in made["initContainers"]] == [
        ["agent", "--config=/etc/podplane/config", "uninstall", "--detach"],
        ["cni", "uninstall", "--bin-dir=/usr/libexec/cni"],
    ]
    assert "kube-api-access" not in {one["name"] for one in made["volumes"]} and "serviceAccountName" not in made
    assert spec["volumes"][-1]["name"] == "kube-api-access", "what was read stays as it was"


def test_another_daemonset_of_that_name_is_not_taken_for_ours() -> None:
    with pytest.raises(KeyError, match="has no container agent"):
        removal.daemonset({"spec": {"template": {"spec": {"containers": [{"name": "other"}]}}}}, detach=False)


def pod(name: str, **spec: Any) -> dict[str, Any]:
    status = {"phase": spec.pop("phase", "Running"), "podIP": spec.pop("ip", "10.244.1.2")}
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"nodeName": "w1", **spec}, "status": status}


def test_pods_that_would_lose_the_network_are_named_and_others_are_not() -> None:
    pods = [
        pod("a"),
        pod("host", hostNetwork=True),
        pod("done", phase="Succeeded"),
        pod("new", nodeName=""),
        pod("early", ip="", phase="Pending"),
    ]
    ends = pod("ends")
    ends["metadata"]["deletionTimestamp"] = "2026-11-28T00:00:00Z"
    assert removal.on_the_network([*pods, ends]) == ["default/a", "default/early", "default/ends"]
    assert removal.refusal(["default/a"]).startswith("1 pod would lose the network: default/a: delete these")
    many = removal.refusal([f"default/{n}" for n in range(9)])
    assert "9 pods would lose the network: default/0, default/1, default/2, default/3, default/4 and 4 more:" in many


def test_of_a_node_only_podplanes_marks_go() -> None:
    taints = [{"key": "a"}, {"key": NOT_READY, "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute"}, {"key": "b"}]
    node = {
        "metadata": {"annotations": {BACKENDS: "vxlan", "others": "x"}},
        "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready"}, {"type": peer_condition.TYPE}]},
    }
    assert removal.without_annotations(node) == {"metadata": {"annotations": {BACKENDS: None}}}
    patch = removal.without_condition(node)
    assert patch == {"status": {"conditions": [{"type": peer_condition.TYPE, "$patch": "delete"}]}}
    assert jsonpatch.apply_patch(node, removal.without_taint(node))["spec"]["taints"] == [{"key": "a"}, {"key": "b"}]
    bare: dict[str, Any] = {"metadata": {}, "spec": {}, "status": {}}
    assert not removal.without_annotations(bare) and not removal.without_condition(bare) and not removal.without_taint(bare)


@pytest.mark.parametrize(("reason", "is_ours"), [(node_block.TWICE, True), ("NoRouteCreated", False)])
def test_a_node_that_controllers_took_from_the_scheduler_is_given_back(reason: str, is_ours: bool) -> None:
    marked = {"type": "NetworkUnavailable", "status": "True", "reason": reason}
    patch = removal.without_condition({"status": {"conditions": [{"type": "Ready", "status": "True"}, marked]}})
    said = [(one["type"], one["status"]) for one in patch["status"]["conditions"]] if patch else []
    assert said == ([("NetworkUnavailable", "False")] if is_ours else [])
    assert not removal.without_condition({"status": {"conditions": [marked | {"status": "False"}]}})


def test_all_that_the_manifest_makes_goes_but_custom_resources() -> None:
    plurals = {"ConfigMap": "configmaps", "DaemonSet": "daemonsets.apps", "Deployment": "deployments.apps", **removal.PLURALS}
    plurals |= {"PodDisruptionBudget": "poddisruptionbudgets.policy"}
    gone = {(resource, name) for resource, _, name in (*removal.objects(), *removal.CONTROLLERS)}
    made = [
        one for one in yaml.safe_load_all(manifests.DEPLOY.read_text()) if one and one["kind"] != "CustomResourceDefinition"
    ]
    for one in made:
        name = one["metadata"]["name"]
        assert (name == removal.AGENT and one["kind"] == "DaemonSet") or (plurals[one["kind"]], name) in gone, (
            one["kind"],
            name,
        )
    assert len([one for one in removal.objects() if "rbac" in one[0]]) == sum(
        one["kind"] in removal.PLURALS and one["kind"] != "ServiceAccount"
        for account in (rbac.AGENTS, rbac.CONTROLLERS)
        for one in rbac.manifests(account)
    )
