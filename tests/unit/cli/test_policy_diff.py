"""What a file would change, as `podplane policy diff` reads it."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
import yaml

from podplane.cli.policy import linted
from podplane.cli.policy.files import text_of
from podplane.cli.policy.proposed import APPLIED, Proposal, check_namespaces, documents, proposal
from podplane.lab.errors import LabError
from podplane.model.policy import NetworkPolicy
from podplane.policy.difference import differences
from podplane.policy.told import told
from tests.unit.cli.policies import ALLOW_WEB, CLIENT, DENY_DB, known
from tests.unit.policy.cluster import Object, namespace, pod, policy

API = {"NetworkPolicy": "networking.k8s.io/v1"}


def text(*objects: Object) -> str:
    return "---\n".join(yaml.safe_dump({"apiVersion": API.get(one["kind"], "v1"), **one}) for one in objects)


def read(*objects: Object, there: tuple[Object, ...] = (), delete: bool = False) -> Proposal:
    by_path = {
        (one["kind"], "/".join(filter(None, (one["metadata"].get("namespace"), one["metadata"]["name"])))): one for one in there
    }
    return proposal(documents(text(*objects), "file.yaml"), by_path, "default", delete=delete)


def test_a_file_of_policies_is_what_they_would_change() -> None:
    cluster = known(ALLOW_WEB)
    changed = told(differences(cluster.index, cluster.pods.values(), list(cluster.nodes.values()), read(DENY_DB).edits))
    assert {one.word for one in changed} == {"denied"}
    assert {"default/client → shop/db", "shop/db → default/client"} <= set(changed[0].lines())
    assert {"from": "default/client", "to": "shop/db"} in list(changed[0].documents())
    found = differences(cluster.index, cluster.pods.values(), [], read(ALLOW_WEB, delete=True).edits)
    rest = {"from": "default/client", "except": ["TCP 8080"]}
    (gone,), (each,) = told(found), told(found, each=True)
    assert next(gone.documents()) == {**rest, "to": "2 pods of default (app=web)"}
    assert list(each.documents())[:2] == [{**rest, "to": f"default/web-{n}"} for n in (1, 2)]
    assert each.number == len(list(each.lines())) > gone.number == len(list(gone.lines()))


def test_names_without_a_namespace_are_of_the_one_that_is_asked_for() -> None:
    (edit,) = read({**ALLOW_WEB, "metadata": {"name": "web"}}).edits
    assert (edit.path, edit.kind) == ("default/web", NetworkPolicy)
    assert isinstance(edit.new, NetworkPolicy)
    assert edit.new.metadata.namespace == "default"


def test_lists_are_read_and_other_kinds_are_told() -> None:
    whole = {"kind": "List", "apiVersion": "v1", "items": [{"apiVersion": "networking.k8s.io/v1", **DENY_DB}]}
    found = read(whole, {"kind": "Service", "metadata": {"name": "web"}}, {**DENY_DB, "apiVersion": "extensions/v1beta1"})
    assert [edit.path for edit in found.edits] == ["shop/deny"]
    assert found.passed_over == {"Service": 1, "NetworkPolicy": 1}
    assert read(namespace("shop"), DENY_DB, delete=True).passed_over == {"Namespace": 1}


def test_of_labels_those_that_were_applied_before_go() -> None:
    applied = json.dumps({"metadata": {"labels": {"team": "a", "old": "x"}}})
    there = namespace("shop", team="a", old="x", by="hand")
    there["metadata"]["annotations"] = {APPLIED: applied}
    (edit,) = read(namespace("shop", team="b"), there=(there,)).edits
    assert edit.new is not None
    assert dict(edit.new.metadata.labels) == {"team": "b", "by": "hand", "kubernetes.io/metadata.name": "shop"}
    there["metadata"]["annotations"] = {APPLIED: "[]"}
    (edit,) = read(namespace("shop", team="b"), there=(there,)).edits
    assert edit.new is not None
    assert edit.new.metadata.labels["old"] == "x"


def test_a_policy_may_be_about_a_namespace_of_the_same_file() -> None:
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "new", "team": "n"}}}]}
    found = read(namespace("new", team="n"), policy("new/p", podSelector={}), policy("shop/p", podSelector={}, ingress=[rule]))
    cluster = known()
    check_namespaces(found, cluster.index)
    assert [one.text for one in linted.of_file(cluster, found.edits)] == ["selects no pod so far: its namespace has no pod"]
    with pytest.raises(LabError, match=r"^NetworkPolicy nowhere/p: there is no namespace nowhere$"):
        check_namespaces(read(policy("nowhere/p", podSelector={})), cluster.index)


def test_a_file_that_does_not_end_is_not_read_to_its_end() -> None:
    with open("/dev/zero", encoding="utf-8") as endless, pytest.raises(click.ClickException, match="is larger than 16,777,216"):
        text_of(endless)


def test_a_pod_that_is_there_may_have_other_labels() -> None:
    there = pod("default/client", CLIENT)
    (edit,) = read(pod("default/client", {"app": "other"}), pod("default/new", CLIENT), there=(there,)).edits
    assert edit.path == "default/client"
    assert edit.new is not None
    assert dict(edit.new.metadata.labels) == {"app": "other"}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("", "file.yaml has no objects"),
        ("a: [", "file.yaml is not YAML: "),
        ("a: &x [1]\nb: *x", "file.yaml is YAML with aliases"),
        ("[" * 300 + "]" * 300, "file.yaml is nested deeper than 200 levels"),
        ("just text", "file.yaml: document 1 is no object"),
        ("kind: NetworkPolicy\nmetadata: {name: 3}", "file.yaml: document 1 is no object"),
    ],
)
def test_what_is_no_object_is_said_in_one_line(file: str, said: str) -> None:
    with pytest.raises(LabError, match=r"^[^\n]*$") as error:
        documents(file, "file.yaml")
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}, "must be greater than or equal to `port`"),
        ({"ingress": 3}, "ingress"),
        ({"ingres": []}, "ingres"),
    ],
)
def test_what_the_api_would_refuse_is_refused(spec: Any, said: str) -> None:
    with pytest.raises(LabError, match=r"^[ -~]*RFC 1123 subdomain\)$"):
        read({**ALLOW_WEB, "metadata": {"name": "a\x1b[31m"}})
    with pytest.raises(LabError, match="the API would refuse it: ") as error:
        read({"kind": "NetworkPolicy", "metadata": {"name": "bad"}, "spec": {"podSelector": {}, **spec}})
    assert said in str(error.value)
    with pytest.raises(LabError, match="keys and values must be strings"):
        read({**namespace("shop"), "metadata": {"name": "shop", "labels": {"a": 1}}}, there=(namespace("shop"),))


def test_mistakes_of_a_namespace_and_of_a_file() -> None:
    cluster = known(ALLOW_WEB, DENY_DB)
    assert linted.of_namespace(cluster, "default") == []
    (one,) = linted.of_namespace(cluster, "")
    assert str(one) == "shop/deny: shop/db can't ask the cluster's DNS: no egress rule allows UDP 53 to it"
    bad = policy("default/bad", podSelector={"matchLabels": CLIENT}, ingress=[{"ports": [{"port": "http"}]}])
    wide = policy("default/wide", podSelector={}, ingress=[{}])
    found = linted.of_file(cluster, read(bad, wide).edits)
    assert linted.document(found)["findings"] == [
        {
            "namespace": "default",
            "name": "bad",
            "rule": "ingress rule 1",
            "mistake": "port not served",
            "text": "none of the pods has a TCP port named http",
        },
        {
            "namespace": "default",
            "name": "bad",
            "rule": "ingress rule 1",
            "mistake": "covered",
            "text": "allows nothing that default/wide ingress rule 1 does not",
        },
    ]
    assert set(cluster.index.policies) == {"default/web", "shop/deny"}
