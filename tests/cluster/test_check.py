"""`podplane check` of a real cluster: all is kept, what is broken is told, and nothing is left, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from podplane.cli.check.cluster import place, rights
from podplane.cli.check.promises import NO_NAT, OUTSIDE, REACH
from podplane.cli.check.report import PROMISES
from podplane.cli.check.services import FROM_OUTSIDE
from podplane.model.config import CHECK_NAMESPACE
from tests.cluster.podplane import Installed
from tests.engines.machine import child_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cluster")]
PAGE = Path(__file__).parents[2] / "docs/check.md"
SECONDS = 200
"""For a whole check on a busy machine."""
DROP = """
add table inet foreign
add chain inet foreign forward { type filter hook forward priority -10; }
add rule inet foreign forward ip saddr BLOCK tcp dport 8079 drop
"""


def checked(cluster: Installed, code: int, *words: str, kubeconfig: str = "") -> dict[str, Any]:
    """What a check finds, by promise; nothing of it is left."""
    process = cluster.rig.podplane_started("check", "--json", *words, kubeconfig=kubeconfig)
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == code, said
    assert not is_there(cluster)
    found: dict[str, Any] = json.loads(said)
    return {one["promise"]: one for one in found["promises"]}


def is_there(cluster: Installed) -> bool:
    """Is the check's namespace?"""
    return CHECK_NAMESPACE in cluster.rig.kubectl("get", "namespaces", "--output=name")


def begun(cluster: Installed) -> subprocess.Popen[str]:
    """A check, once some of its pods are there."""
    process = cluster.rig.podplane_started("check")
    chosen = (f"--namespace={CHECK_NAMESPACE}", f"--selector={place.SELECTOR}", "--output=name")
    cluster.rig.until(lambda: cluster.rig.kubectl("get", "pods", *chosen).strip())
    return process


def test_all_is_kept_for_who_has_the_rights_that_the_page_lists_and_without_them_they_are_named(cluster: Installed) -> None:
    user = cluster.rig.user("checker")
    said = cluster.rig.podplane("check", kubeconfig=user, code=2)
    assert "list nodes; get, create, delete namespaces; create, list, delete pods in namespace podplane-check" in said
    assert not is_there(cluster)
    rules = yaml.safe_load(PAGE.read_text().partition("```yaml\n")[2].partition("```")[0])["rules"]
    for table in (rights.OF_CLUSTER, rights.OF_OWN_NAMESPACE):
        rules += [{"apiGroups": [group], "resources": [one], "verbs": list(verbs)} for (group, one), verbs in table.items()]
    version, name = "rbac.authorization.k8s.io/v1", {"name": "checker"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "checker"}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "checker"}]
    cluster.apply(
        {"apiVersion": version, "kind": "ClusterRole", "metadata": name, "rules": rules},
        {"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": name, "roleRef": role, "subjects": subjects},
    )
    found = checked(cluster, 0, "--deep", kubeconfig=user)
    cluster.kubectl("delete", "clusterrolebinding,clusterrole", "checker")
    for promise in (REACH, NO_NAT, FROM_OUTSIDE, "policies", "full-size", "service-source", "node-to-pod", "pod-to-node"):
        assert found[promise]["probes"] > 0 and not found[promise]["failures"], promise
    assert found["policies"]["probes"] > 50
    not_tried = {promise for promise, one in found.items() if "not_tried" in one}
    assert not_tried <= {OUTSIDE, "api-server", "service-names", "headless-names", "missing-names", "names-of-addresses"}
    assert found.keys() <= PROMISES.keys()


def test_what_is_broken_is_told_and_what_a_check_left_that_was_killed_is_gone_then(cluster: Installed) -> None:
    process = begun(cluster)
    os.kill(child_of(process), signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert is_there(cluster)
    machine = cluster.rig.nodes["w1"]
    block = cluster.rig.get("node", "w2")["spec"]["podCIDR"]
    machine("nft", "--file=-", stdin=DROP.replace("BLOCK", block))
    try:
        found = checked(cluster, 1)
    finally:
        machine("nft", "delete", "table", "inet", "foreign")
    assert not found[REACH]["failures"], "pings pass"
    failures = found[NO_NAT]["failures"]
    assert failures and all(one.partition(" ")[0].endswith("on-w2") for one in failures)
    assert all(one.endswith("tcp: expected an answer, got no answer") for one in failures)


def test_who_ends_a_check_finds_nothing_of_it(cluster: Installed) -> None:
    process = begun(cluster)
    os.kill(child_of(process), signal.SIGTERM)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130 and not is_there(cluster)
