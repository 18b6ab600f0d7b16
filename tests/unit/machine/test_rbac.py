"""What agents and controllers may do, as objects for a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from podplane.agent import peer_condition
from podplane.machine import rbac
from podplane.machine.rbac import NAMESPACE
from podplane.model.config import BACKENDS, MACHINE, UNDERLAY_MTU

PAGE = Path(__file__).parents[3] / "docs/agent.md"
PAGES = {rbac.AGENTS: PAGE, rbac.CONTROLLERS: PAGE.with_name("controllers.md")}
each = pytest.mark.parametrize("account", PAGES, ids=lambda account: account.name)


@each
def test_every_rule_is_in_the_role_of_its_namespace(account: rbac.Account) -> None:
    objects = {(one["kind"], one["metadata"].get("namespace", "")): one for one in rbac.manifests(account)}
    for rule in account.rules:
        kind = "Role" if rule.namespace else "ClusterRole"
        given = {"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)}
        given |= {"resourceNames": list(rule.names)} if rule.names else {}
        assert given in objects[kind, rule.namespace]["rules"]
        binding = objects[f"{kind}Binding", rule.namespace]
        assert binding["roleRef"]["kind"] == kind
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account.name, "namespace": "kube-system"}]


@each
def test_no_rule_has_a_wildcard_or_what_another_one_has(account: rbac.Account) -> None:
    rights = [
        (rule.group, resource, verb, rule.namespace)
        for rule in account.rules
        for resource in rule.resources
        for verb in rule.verbs
    ]
    assert len(rights) == len(set(rights)) and not any("*" in right for right in rights)
    everywhere = {right[:3] for right in rights if not right[3]}
    assert not any(right[:3] in everywhere for right in rights if right[3]), (
        "what is allowed everywhere is not allowed once more"
    )


def test_what_is_allowed_in_one_namespace_is_not_in_others() -> None:
    assert rbac.allows("discovery.k8s.io", "endpointslices", "patch", "kube-system")
    assert rbac.allows("discovery.k8s.io", "endpointslices", "patch", "default") is None
    assert rbac.allows("discovery.k8s.io", "endpointslices", "list", "")
    assert rbac.allows("coordination.k8s.io", "leases", "patch", "default")
    assert rbac.allows("", "secrets", "get", "default") is None


def test_controllers_change_no_node_where_others_give_blocks() -> None:
    fewer = rbac.CONTROLLERS.without_node_blocks
    for group, resource, verb, namespace in (
        ("", "nodes", "patch", ""),
        ("", "nodes/status", "patch", ""),
        ("", "configmaps", "get", NAMESPACE),
    ):
        assert rbac.allows(group, resource, verb, namespace, rbac.CONTROLLERS)
        assert rbac.allows(group, resource, verb, namespace, fewer) is None
    assert {rule for rule in rbac.CONTROLLERS.rules if not rule.of_node_blocks} == set(fewer.rules)


@each
def test_the_documentation_has_every_rule_and_no_other(account: rbac.Account) -> None:
    _, _, rights = PAGES[account].read_text().partition("\n## Rights\n")
    rows = [line for line in rights.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        f"| {', '.join(rule.resources)} | {', '.join(rule.verbs)} | {': '.join((rule.namespace or 'all', *rule.names))} | {rule.why} |"
        for rule in account.rules
    ]


def test_pages_about_removal_name_all_that_agents_have_written_on_nodes() -> None:
    for page in (PAGE, PAGE.with_name("install.md")):
        text = page.read_text()
        assert all(f"{annotation}-" in text for annotation in (BACKENDS, UNDERLAY_MTU, MACHINE))
        assert f'{{"type":"{peer_condition.TYPE}","$patch":"delete"}}' in text
