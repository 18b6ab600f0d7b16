"""Requests: what goes over the wire comes apart into the same request, whatever names and words are in it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import paths
from podplane.apiserver.registry import Registry
from podplane.apiserver.store import Store
from podplane.kubeapi import requests
from podplane.kubeapi.messages import MERGE_PATCH, Request

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?(\.[a-z0-9])?", fullmatch=True)
REGISTRY = Registry(Store(":memory:"))
WORDS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.sampled_from(["pods", "nodes", "namespaces"]), NAMES, NAMES, st.sampled_from(["", "status", "finalize"]))
def test_a_path_is_read_as_it_was_meant(resource: str, namespace: str, name: str, subresource: str) -> None:
    for wanted in ((name, subresource), (name, ""), ("", "")):
        target = paths.parse(unquote(requests.path_of(resource, namespace, *wanted)), REGISTRY)
        assert (target.resource.plural, target.name, target.subresource) == (resource, *wanted)
        assert target.namespace == (namespace if resource == "pods" else "")


@given(WORDS.filter(bool))
def test_no_name_reaches_beyond_its_part_of_the_path(name: str) -> None:
    path = requests.path_of("pods", name, name, "status")
    parts = path.split("/")
    assert (len(parts), parts[3], parts[5], parts[7]) == (8, "namespaces", "pods", "status")
    assert unquote(parts[4]) == unquote(parts[6]) == name
    assert path.isascii()
    assert not set(path) & set(" ?#\r\n")


@given(st.dictionaries(WORDS, st.lists(WORDS, min_size=1, max_size=3), max_size=4))
def test_a_query_comes_back_as_it_was(query: dict[str, list[str]]) -> None:
    line = requests.target(Request("GET", "/api/v1/pods", query))
    assert line.isascii()
    split = urlsplit(line)
    assert (split.path, parse_qs(split.query, keep_blank_values=True)) == ("/api/v1/pods", query)


@given(st.lists(WORDS, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_a_command_comes_back_word_by_word(command: list[str], stdin: bool, tty: bool) -> None:
    request = requests.execute("t", "a", "web", command, container="c", stdin=stdin, tty=tty)
    back = Request("GET", "/", parse_qs(urlsplit(requests.target(request)).query, keep_blank_values=True))
    assert back.query["command"] == command
    assert (back.flag("stdin"), back.flag("tty"), back.flag("stdout"), back.flag("stderr")) == (stdin, tty, True, not tty)
    assert back.parameter("container") == "c"


def test_what_each_verb_sends() -> None:
    get = requests.get("t", "pods", "a", labelSelector="x=y", fieldSelector="")
    assert (get.method, get.path, get.query, get.body) == ("GET", "/api/v1/namespaces/a/pods", {"labelSelector": ["x=y"]}, b"")
    create = requests.create("t", "nodes", "", {"metadata": {"name": "ä"}})
    assert (create.method, create.path, json.loads(create.body)) == ("POST", "/api/v1/nodes", {"metadata": {"name": "ä"}})
    patch = requests.patch("t", "pods", "a", "web", {"status": {}}, "status")
    assert (patch.method, patch.path) == ("PATCH", "/api/v1/namespaces/a/pods/web/status")
    assert [r.headers["content-type"] for r in (create, patch)] == ["application/json", MERGE_PATCH]
    watch = requests.watch("t", "pods", "7")
    assert (watch.path, watch.parameter("resourceVersion"), watch.flag("watch")) == ("/api/v1/pods", "7", True)
    assert all(r.headers["authorization"] == "Bearer t" for r in (get, create, patch, watch))


def test_without_a_token_no_header() -> None:
    assert "authorization" not in requests.get("", "nodes").headers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"grace": 0}, {"gracePeriodSeconds": 0}),
        ({"grace": 7, "uid": "u"}, {"gracePeriodSeconds": 7, "preconditions": {"uid": "u"}}),
    ],
)
def test_delete_options(options: dict[str, Any], expected: dict[str, Any]) -> None:
    body = msgspec.json.decode(requests.delete("t", "pods", "a", "web", **options).body)
    assert body == {"apiVersion": "v1", "kind": "DeleteOptions", **expected}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1"], True),
        (["t"], True),
        (["TRUE"], True),
        (["true", "false"], True),
        (["0"], False),
        (["false"], False),
        ([], False),
    ],
)
def test_flags(values: list[str], expected: bool) -> None:
    assert Request("GET", "/", {"watch": values} if values else {}).flag("watch") is expected


@pytest.mark.parametrize("value", ["", "yes"])
def test_a_flag_without_a_value_is_set(value: str) -> None:
    assert Request("GET", "/", {"watch": [value]}).flag("watch")
