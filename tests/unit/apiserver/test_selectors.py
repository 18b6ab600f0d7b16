"""Selectors mean what apimachinery's do, however they are spaced; what can't be read is a 400."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podplane.apiserver.problems import Problem
from podplane.apiserver.selectors import Predicate, Selection, both, field_terms, labels
from tests.unit.apiserver.test_server import PODS, Api


def labelled(own: dict[str, str] | None) -> dict[str, Any]:
    return {"metadata": {"name": "x", "labels": own}}


def fields(text: str, known: set[str]) -> Predicate:
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
    for parse in (labels, lambda text: fields(text, {"a"})):
        try:
            assert parse(text)(labelled({"a": "b"})) in (True, False)
        except Problem as problem:
            assert (problem.code, problem.reason, problem.status()["kind"]) == (400, "BadRequest", "Status")


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
    ],
)
async def test_what_go_refuses_is_a_bad_request(selector: str) -> None:
    message = await Api().refused("BadRequest", "GET", PODS, labelSelector=selector)
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


KNOWN = {"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "status.podIP"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("metadata.name=web", True),
        ("metadata.name==web", True),
        ("metadata.name!=web", False),
        ("metadata.name=web,spec.nodeName=n2", False),
        ("metadata.name = web , spec.nodeName = n1", True),
        ("status.podIP=", True),
        ("status.podIP!=", False),
        ("metadata.name!=db,status.phase!=Failed", True),
        ("metadata.name=web,", True),
    ],
)
def test_field_selectors(selector: str, expected: bool) -> None:
    assert fields(selector, KNOWN)(POD) is expected
    assert chosen(Selection.of("", "", "", selector, KNOWN), POD) is expected


@pytest.mark.parametrize("selector", ["metadata.name", "metadata.name=a=b", "spec.color=red", "=a", "metadata.name in (a)"])
async def test_bad_field_selectors_are_refused(selector: str) -> None:
    message = await Api().refused("BadRequest", "GET", PODS, fieldSelector=selector)
    assert "field selector" in message


async def test_label_and_field_selectors_together() -> None:
    api = Api()
    await api.pod("a", labels={"app": "web"})
    await api.pod("b", labels={"app": "web"})
    assert await api.names(PODS, labelSelector="app=web", fieldSelector="metadata.name=b") == ["b"]
    assert await api.names(PODS, labelSelector="app=db", fieldSelector="metadata.name=b") == []


def test_both_of_what_is_there() -> None:
    assert both() is None
    assert both(None, None) is None
    yes = both(None, lambda object_: True)
    no = both(lambda object_: True, lambda object_: False)
    assert yes and no
    assert (yes({}), no({})) == (True, False)
