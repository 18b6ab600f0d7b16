"""Selectors mean what apimachinery's do, however they are spaced; what can't be read is a 400."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.selectable import EVENTS, JOBS, NODES, PODS, REPLICA_SETS, Fields, Value, custom, paths
from podplane.apiserver.kinds.table import RESOURCES
from podplane.apiserver.problems import Problem
from podplane.apiserver.selectors import Predicate, Selection, both, field_terms, labels
from tests.unit.apiserver.test_server import PODS as PATH
from tests.unit.apiserver.test_server import Api


def labelled(own: dict[str, str] | None) -> dict[str, Any]:
    return {"metadata": {"name": "x", "labels": own}}


def fields(text: str, known: Fields) -> Predicate:
    """A field selector, without the indices."""
    tests = [term.predicate() for term in field_terms(text, known)]
    return lambda object_: all(test(object_) for test in tests)


# Each requirement is (key, operator, values); `KEYS` has what is hard to read: operators' names, dots, slashes.
KEYS = st.sampled_from(["a", "b", "in", "notin", "example.com/a-b_c.d", "0.1.2.domain/99"])
VALUES = st.sampled_from(["", "x", "y", "in", "10.10.100.1", "A-b_c"])
SPACE = st.sampled_from(["", " ", "\t ", "\n"])
BLANK = st.sampled_from([" ", "\t ", "\n"])
Requirement = tuple[str, str, frozenset[str]]


@st.composite
def requirement(draw: st.DrawFn) -> tuple[str, Requirement]:
    """A requirement, and one of the ways to write it."""
    key, how = draw(KEYS), draw(st.sampled_from(["=", "==", "!=", "in", "notin", "exists", "absent"]))
    before, after = draw(SPACE), draw(SPACE)
    if how in ("in", "notin"):
        values = draw(st.lists(VALUES, min_size=1, max_size=3))
        inner = ",".join(f"{draw(SPACE)}{value}{draw(SPACE)}" for value in values)
        return f"{before}{key}{draw(BLANK)}{how}{draw(BLANK)}({inner}){after}", (key, how, frozenset(values))
    if how in ("exists", "absent"):
        return f"{before}{'!' if how == 'absent' else ''}{key}{after}", (key, how, frozenset())
    value = draw(VALUES)
    return f"{before}{key}{draw(SPACE)}{how}{draw(SPACE)}{value}{after}", (key, how, frozenset({value}))


def holds(wanted: Requirement, own: dict[str, str]) -> bool:
    """What labels/selector.go says of it (Requirement.Matches)."""
    key, how, values = wanted
    match how:
        case "=" | "==" | "in":
            return key in own and own[key] in values
        case "!=" | "notin":
            return key not in own or own[key] not in values
        case "exists":
            return key in own
        case _:
            return key not in own


@given(st.lists(requirement(), min_size=1, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_a_selector_is_the_conjunction_of_its_requirements(terms: list[tuple[str, Requirement]], own: dict[str, str]) -> None:
    text = ",".join(text for text, _ in terms)
    assert labels(text)(labelled(own)) is all(holds(wanted, own) for _, wanted in terms)


@given(st.lists(requirement(), min_size=2, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_a_comma_is_an_and(terms: list[tuple[str, Requirement]], own: dict[str, str]) -> None:
    texts = [text for text, _ in terms]
    assert labels(",".join(texts))(labelled(own)) is all(labels(text)(labelled(own)) for text in texts)


@given(KEYS, VALUES, st.dictionaries(KEYS, VALUES))
def test_a_negation_is_the_opposite(key: str, value: str, own: dict[str, str]) -> None:
    for yes, no in ((f"{key}={value}", f"{key}!={value}"), (f"{key} in ({value})", f"{key} notin ({value})"), (key, f"!{key}")):
        assert labels(yes)(labelled(own)) is not labels(no)(labelled(own))


@given(st.text("ab=!,() innot\t<>|", max_size=20) | st.text(max_size=20))
@example("(" * 500)
@example("a," * 500)
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    for parse in (labels, lambda text: fields(text, Fields(paths("a")))):
        try:
            assert parse(text)(labelled({"a": "b"})) in (True, False)
        except Problem as problem:
            assert (problem.code, problem.reason, problem.status()["kind"]) == (400, "BadRequest", "Status")


def test_blanks_choose_everything() -> None:
    for text in (" ", "\t ", "\n"):
        assert labels(text)(labelled({}))


def test_no_labels_at_all() -> None:
    nothing: tuple[dict[str, str] | None, ...] = (None, {})
    for own in nothing:
        assert labels("!a,a!=b,a notin (b)")(labelled(own))
        assert not any(labels(text)(labelled(own)) for text in ("a", "a=", "a in ()"))


GO_ACCEPTS = [
    # selector, labels it takes, labels it leaves; from the tables of selector_test.go
    ("x in ()", {"x": ""}, {}),
    ("x in (abc,)", {"x": ""}, {"x": "def"}),
    ("x notin ( )", {"x": "a"}, {"x": ""}),
    ("a in (x,y,notin, z,in)", {"a": "notin"}, {"a": "notin, z"}),
    ("x notin\n (abc)", {}, {"x": "abc"}),
    ("this-is-a-dns.domain.com/key-with-dash", {"this-is-a-dns.domain.com/key-with-dash": ""}, {}),
    ("x= ,z= ", {"x": "", "z": ""}, {"x": ""}),
]


@pytest.mark.parametrize(
    ("selector", "takes", "leaves"),
    [
        *GO_ACCEPTS,
        ("x in(abc,def)", {"x": "abc"}, {"x": "x"}),
        ("x notin(abc)", {}, {"x": "abc"}),
        ("x>1", {"x": "2"}, {"x": "1"}),
        ("x<7", {"x": "6"}, {"x": "7"}),
        ("e-x.y/x=1", {"e-x.y/x": "1"}, {"e-x.y/x": "2"}),
    ],
)
def test_what_go_accepts(selector: str, takes: dict[str, str], leaves: dict[str, str]) -> None:
    assert labels(selector)(labelled(takes))
    assert not labels(selector)(labelled(leaves))


@pytest.mark.parametrize(
    "selector",
    [
        *(
            "x=a||y=b",
            "x==a==b",
            "!x=a",
            "x,,y",
            ",x,y",
            "x nott in (y)",
            "a in (xyz),",
            "a in (xyz)b notin ()",
            "a notin(",
            "a (",
        ),
        *("(", ")", "a in x", "a in (x", "a not in (x)", "a=b c", "=a", "!", "!!a", "a=(b)"),
        "a in (xyz abc)",
        "a in (b=c)",
        "a=" + "x" * 64,
        "a=-b",
        "-a",
        "a/b/c=d",
        "e.x-/a=x",
        "e-.x/a",
        "e..x/a",
        "a>-4",
        "a>" + "1" * 5000,
    ],
)
async def test_what_go_refuses_is_a_bad_request(selector: str) -> None:
    message = await Api().refused("BadRequest", "GET", PATH, labelSelector=selector)
    assert "label selector" in message


POD = {"metadata": {"name": "web", "namespace": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}


def chosen(selection: Selection, object_: dict[str, Any]) -> bool:
    """Is an object part of a selection?"""
    metadata = object_["metadata"]
    return (
        selection.namespace in ("", metadata.get("namespace", ""))
        and selection.name in ("", metadata["name"])
        and (selection.wanted is None or selection.wanted(object_))
    )


KNOWN = PODS


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("metadata.name=web", True),
        ("metadata.name==web", True),
        ("metadata.name!=web", False),
        ("metadata.name=web,spec.nodeName=n2", False),
        ("metadata.name=web,spec.host=n1", True),
        ("status.podIP=", True),
        ("status.podIP!=", False),
        ("metadata.name!=db,status.phase!=Failed", True),
        ("metadata.name=web,", True),
    ],
)
def test_field_selectors(selector: str, expected: bool) -> None:
    assert fields(selector, KNOWN)(POD) is expected
    assert chosen(Selection.of("", "", "", selector, KNOWN), POD) is expected


@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ("metadata.name=a\\b", "invalid field selector: invalid escape sequence: \\b"),
        ("metadata.name=a\\", "invalid field selector: invalid escape sequence: \\"),
        ("spec.color=red", "field label not supported: spec.color"),
        (" metadata.name=a", "field label not supported:  metadata.name"),
        ("=a", "field label not supported: "),
        ("metadata.name in (a)", "invalid selector: 'metadata.name in (a)'; can't understand 'metadata.name in (a)'"),
    ],
)
async def test_bad_field_selectors_are_refused_in_the_words_of_kubernetes(selector: str, why: str) -> None:
    assert await Api().refused("BadRequest", "GET", PATH, fieldSelector=selector) == why


@pytest.mark.parametrize("value", ["a,b", "a=b", "a\\b", "a\\,=", ",", "=", "\\"])
async def test_values_with_commas_and_equals_signs_are_escaped(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
    assert fields(f"reason={escaped},type!=x", EVENTS)({"reason": value})
    assert not fields(f"reason!={escaped}", EVENTS)({"reason": value})


async def test_a_watch_of_one_object_takes_no_other_selector() -> None:
    api = Api()
    await api.pod("a")
    why = "fieldSelector metadata.name doesn't match requested name"
    for selector in ("metadata.name=b", "status.phase=Running", "metadata.name!=b"):
        assert await api.refused("BadRequest", "GET", f"{PATH}/a", watch="1", fieldSelector=selector) == why
    stream = await api.answer("GET", f"{PATH}/a", watch="1", fieldSelector="metadata.name=a", timeoutSeconds="0.01")
    assert stream.status == 200


class Every(dict[str, Value]):
    """Any field is one to select by."""

    def get(self, name: str, default: Any = None) -> Value:
        return lambda _: ""


READ = json.loads((Path(__file__).parent / "field_selectors.json").read_text())["cases"]


@pytest.mark.parametrize(("selector", "expected"), READ)
def test_field_selectors_are_read_as_apimachinery_reads_them(selector: str, expected: str | list[list[str]]) -> None:
    try:
        terms = field_terms(selector, Fields(Every()))
    except Problem as problem:
        assert str(problem) == expected
    else:
        found = [[term.path, "=" if term.equal else "!=", term.value] for term in terms if term.path or term.value]
        assert found == [[path, how.replace("==", "="), value] for path, how, value in expected if path or value]


FACTS = {
    "configmaps": ["metadata.name", "metadata.namespace"],
    "events": [
        *("metadata.name", "metadata.namespace", "reason", "reportingComponent", "source", "type"),
        *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid"),
        *("involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath"),
    ],
    "namespaces": ["metadata.name", "status.phase"],
    "nodes": ["metadata.name", "spec.unschedulable"],
    "pods": [
        *("metadata.name", "metadata.namespace", "spec.nodeName", "spec.host", "spec.restartPolicy", "spec.schedulerName"),
        *("spec.serviceAccountName", "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs"),
        "status.nominatedNodeName",
    ],
    "secrets": ["metadata.name", "metadata.namespace", "type"],
    "services": ["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
    "replicasets.apps": ["metadata.name", "metadata.namespace", "status.replicas"],
    "jobs.batch": ["metadata.name", "metadata.namespace", "status.successful"],
}
"""The fields of each kind (pkg/apis/*/v1/conversion.go of Kubernetes 1.36); those of any other are those of ConfigMaps."""
WORDS = {"jobs.batch": 'field label "spec.x" not supported for Job'}
OTHERS = '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"'
UNSUPPORTED = "field label not supported: spec.x"


@pytest.mark.parametrize("row", [row for row in RESOURCES if not row.is_review], ids=lambda row: row.id)
async def test_each_kind_takes_the_fields_that_kubernetes_takes_and_no_others(row: Resource) -> None:
    api = Api()
    path = f"/apis/{row.group_version}/{row.plural}" if row.group else f"/api/v1/{row.plural}"
    wanted = FACTS.get(row.id, FACTS["configmaps"])
    assert sorted(row.fields.values) == sorted(wanted)
    for field in wanted:
        await api("GET", path, fieldSelector=f"{field}=x,{field}!=y")
    words = WORDS.get(row.id, UNSUPPORTED if row.id in FACTS and row.id not in ("configmaps", "replicasets.apps") else OTHERS)
    assert await api.refused("BadRequest", "GET", path, fieldSelector="spec.x=y") == words


@pytest.mark.parametrize(
    ("fields_", "object_", "selector"),
    [
        (NODES, {}, "spec.unschedulable=false"),
        (NODES, {"spec": {"unschedulable": True}}, "spec.unschedulable=true"),
        (PODS, {"spec": {}}, "spec.hostNetwork=false"),
        (PODS, {"spec": {"hostNetwork": True}}, "spec.hostNetwork=true"),
        (PODS, {"spec": {}}, "spec.nodeName="),
        (PODS, {"spec": {"nodeName": "n1"}}, "spec.host=n1"),
        (PODS, {"status": {"podIP": "192.0.2.1"}}, "status.podIP=192.0.2.1"),
        (
            PODS,
            {"status": {"podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]}},
            "status.podIP=192.0.2.1",
        ),
        (PODS, {"status": {"podIPs": [{"ip": "192.0.2.1"}]}}, "status.podIPs="),
        (JOBS, {}, "status.successful=0"),
        (JOBS, {"status": {"succeeded": 3}}, "status.successful=3"),
        (REPLICA_SETS, {}, "status.replicas=0"),
        (EVENTS, {"source": {"component": "kubelet"}, "reportingComponent": "other"}, "source=kubelet"),
        (EVENTS, {"source": {}, "reportingComponent": "other"}, "source=other"),
        (custom(True, ["spec.on", "spec.count"]), {"spec": {"on": True, "count": 0}}, "spec.on=true,spec.count=0"),
        (custom(True, ["spec.on"]), {}, "spec.on="),
    ],
)
def test_values_of_fields_are_kubernetes_also_where_nothing_stands(
    fields_: Fields, object_: dict[str, Any], selector: str
) -> None:
    assert fields(selector, fields_)(object_)
    assert not fields(selector.split(",")[0].replace("=", "!="), fields_)(object_)


async def test_a_cluster_scoped_custom_resource_has_no_namespace_to_select_by() -> None:
    assert sorted(custom(False, []).values) == ["metadata.name"]
    assert custom(False, []).refusal.format("metadata.namespace") == "field label not supported: metadata.namespace"


async def test_label_and_field_selectors_together() -> None:
    api = Api()
    await api.pod("a", labels={"app": "web"})
    await api.pod("b", labels={"app": "web"})
    assert await api.names(PATH, labelSelector="app=web", fieldSelector="metadata.name=b") == ["b"]
    assert await api.names(PATH, labelSelector="app=db", fieldSelector="metadata.name=b") == []


def test_both_of_what_is_there() -> None:
    assert both() is None
    assert both(None, None) is None
    yes = both(None, lambda object_: True)
    no = both(lambda object_: True, lambda object_: False)
    assert yes and no
    assert (yes({}), no({})) == (True, False)
