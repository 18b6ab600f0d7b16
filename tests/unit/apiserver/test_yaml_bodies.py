"""Bodies in YAML: read once, as JSON has it; PyYAML's loader is the oracle of what a document says."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from podplane.apiserver import yaml_bodies
from podplane.kubeapi.messages import Request, Response
from podplane.model import bounded_yaml
from tests.unit.apiserver.test_server import Api

MAPS = "/api/v1/namespaces/default/configmaps"


def said(text: str | bytes) -> Any:
    return yaml_bodies.read(text.encode() if isinstance(text, str) else text, 50, 10_000).value


WORDS = [
    "yes",
    "No",
    "on",
    "~",
    "null",
    "",
    "012",
    "0x1f",
    "1_000",
    "1.5",
    "-1",
    ".inf",
    "<<",
    "=",
    "1e3",
    "2001-01-01",
    "1:30",
    "a: b",
]
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6) | st.sampled_from(WORDS)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=12
)


@given(values, st.sampled_from([None, True, False]))
def test_what_was_written_is_read(value: Any, flow: bool | None) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert said(text) == yaml.safe_load(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "Off", "TRUE", "~", "", "null", "12", "-12", "+7", "0", "-0", "017", "0b101", "-0x1F", "1_000", "1.", ".5"),
        *("1.5e+3", "08", "1e3", "y", "abc", "'12'", '"yes"', "! 12", "!!str 12", "!!int 12", "!!bool yes", "!!float 1.5"),
        *("!!null ~", "|\n  12\n", "&a 12"),
    ],
)
def test_a_scalar_means_what_it_means_to_pyyaml(text: str) -> None:
    found, wanted = said(f"a: {text}"), yaml.safe_load(f"a: {text}")
    assert (found, type(found["a"])) == (wanted, type(wanted["a"]))


@pytest.mark.parametrize("text", ["1:30", "-190:20:30", "190:20:30.15", "2001-01-01", "2001-12-15T02:59:43.1Z", "="])
def test_times_and_dates_are_texts(text: str) -> None:
    assert said(f"a: {text}") == {"a": text}


def test_keys_are_texts() -> None:
    assert said("{1: a, yes: b, ~: c, 1.5: d, e: f}") == {"1": "a", "true": "b", "null": "c", "1.5": "d", "e": "f"}


def test_keys_that_are_there_twice_are_named_with_their_lines() -> None:
    found = yaml_bodies.read(b"a: 1\nb:\n  c: 2\n  c: 3\na: [{d: 1, d: 2}]\n", 50, 100)
    assert found == yaml_bodies.Document({"a": [{"d": 2}], "b": {"c": 3}}, ((4, "c"), (5, "a"), (5, "d")))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: !!binary aGk=", "tag tag:yaml.org,2002:binary"),
        ("a: !!set {b}", "tag tag:yaml.org,2002:set"),
        ("a: !!int b", "no meaning in JSON"),
        ("a: !mine [b]", "tag !mine"),
        ("? [a]\n: b", "a key is a text"),
        ("a: {<<: {b: c}}", "merge key"),
        ("a: .nan", "no number of JSON"),
        ("a: -.INF", "no number of JSON"),
        ("a: 0x_", "no number of JSON"),
        ("a: " + "9" * 400, "no number of JSON"),
        ("a: " + "9" * 5000, "no number of JSON"),
        ("a: 1\n---\na: 2", "single document"),
    ],
)
def test_what_json_has_no_words_for_is_refused(text: str, why: str) -> None:
    with pytest.raises(yaml_bodies.NotJson, match=why):
        said(text)


def test_large_whole_numbers_are_read_as_json_reads_them() -> None:
    assert said(f"[{1 << 64}, {(1 << 64) - 1}]") == [float(1 << 64), (1 << 64) - 1]


async def created(api: Api, body: bytes) -> int:
    headers = {"authorization": "Bearer secret", "content-type": "application/yaml"}
    answer = await api.server.handle(Request("POST", MAPS, {}, headers, body))
    assert isinstance(answer, Response)
    return answer.status


@pytest.mark.parametrize(("keys", "is_large"), [(3, False), (5_000, True)])
async def test_a_body_is_read_once_and_a_large_one_beside_the_loop(
    keys: int, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    events = bounded_yaml.events

    def noted(data: bytes, depth: int, most: int) -> Any:
        threads.append(threading.get_ident())
        return events(data, depth, most)

    monkeypatch.setattr(bounded_yaml, "events", noted)
    body = yaml.safe_dump({"metadata": {"name": "a"}, "data": {f"k{n}": "v" for n in range(keys)}}).encode()
    assert await created(Api(), body) == 201
    assert len(threads) == 1
    assert (threads[0] != threading.get_ident()) is is_large


@pytest.mark.parametrize(
    "body",
    [b'a: "\\ud800"', b"metadata: [", b"a: .nan", b"a: 1\n---\nb: 2", b"\xff\xfe\x00", b"a: " + b"1:" * 50_000 + b"1", b"- 1"],
)
async def test_what_can_not_be_read_is_refused(body: bytes) -> None:
    assert await created(Api(), body) in (400, 422)


def test_hostile_numbers_cost_one_look_at_each() -> None:
    """Numbers to the base of 60 cost the square of their length where they are computed."""
    assert said(b"a: " + b"1:" * 60_000 + b"1") == {"a": "1:" * 60_000 + "1"}


def test_json_is_yaml() -> None:
    value = {"a": [1, 2.5, None, True, "x", {"b": []}], "c": {}}
    assert said(json.dumps(value)) == value
