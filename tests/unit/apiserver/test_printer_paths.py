"""Paths of printer columns: those of Kubernetes are followed, and none may cost more than its object."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.apiserver.kinds import printer_paths
from podplane.apiserver.kinds.printer_paths import MAX_LENGTH, PLAIN, compiled, first, refusal
from podplane.kubeapi.messages import Request, Response
from tests.unit.apiserver.test_custom import CRDS, PEERS, SPEC, VERSION, define, peer
from tests.unit.apiserver.test_server import Api

OBJECT = {
    "spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}], "x-y": 3},
    "metadata": {"annotations": {"example.org/note": "here"}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".spec.ports[*].port", (1,)),
        (".spec.ports[-1:].port", (2,)),
        (".spec.ports[1].name", ("b",)),
        (".spec['x-y']", (3,)),
        (".spec.ports[0,1].port", (1,)),
        (".metadata.annotations.example\\.org/note", ("here",)),
        ('.status.conditions[?(@.type=="Other")].status', ("False",)),
        (".status.conditions[?(@.type=='Ready')].status", ("True",)),
        (".spec.ports[?(@.port>1)].name", ("b",)),
        (".spec.ports[?(@.name)].name", ("a",)),
        ("..note", ()),
        ("..port", (1,)),
        (".nothing.there", ()),
    ],
)
def test_paths_that_kubernetes_has(path: str, values: tuple[Any, ...]) -> None:
    found = compiled(path)
    assert refusal(path) == "" and found is not None
    assert first(found, OBJECT) == values


REFUSED = (
    *("..[?(@.a=~/(a+)+$/)]", "..[?match(@.a,'(a+)+')]", "..[?search(@.a,'(a+)+')]", ".spec[?(length(@.a)>1)]"),
    *(".spec[?(count(@..*)>1)]", ".spec[?(value(@.a)==1)]", ".spec[?(@.a in ['b'])]", ".spec[?(@.a contains 'b')]"),
    *(".spec[?(@.a==1 && @.b==2)]", ".spec[?(@.a || @.b)]", ".spec[?(!@.a)]", ".spec[?(@.a==$.b)]", ".spec[?(@..a)]"),
    *(".spec[?(@.a[?(@.b)])]", ".spec[?(@['a','b'])]", ".spec[?(#=='a')]", ".spec[?(_.a)]", ".spec.~", ".spec[~?(@.a)]"),
    *("..a..b", "..*..*..*..*", ".a[*,*][*,*]", "..[*,*]", ".a[" + "0," * 16 + "0]", ".a | $.b", ".a & $.b", ".a[$.b]"),
    "." + "a" * MAX_LENGTH,
)


@pytest.mark.parametrize("path", REFUSED)
def test_paths_that_it_has_not_or_that_multiply(path: str) -> None:
    assert refusal(path) and compiled(path) is None


@pytest.mark.parametrize(
    "path", ["[", ".a[?(", "|", ".spec[?(@..a==1)]", ".a[" + "9" * 900 + "]", ".a" + "[?(@" * 200, ".a[?(@.b=~/(/)]", ""]
)
def test_paths_that_cannot_be_read_make_no_trouble(path: str) -> None:
    found = compiled(path)
    assert found is None or first(found, OBJECT) in ((), (OBJECT,))


def test_an_object_that_is_deeper_than_a_path_goes_has_an_empty_cell() -> None:
    deep: Any = {"z": 1}
    for _ in range(150):
        deep = {"a": deep}
    found = compiled("..z")
    assert found is not None and first(found, deep) == ()


def with_column(path: str) -> dict[str, Any]:
    column = {"name": "A", "type": "string", "jsonPath": path}
    return {**SPEC, "versions": [{**copy.deepcopy(VERSION), "additionalPrinterColumns": [column]}]}


@pytest.mark.parametrize("path", REFUSED[:2])
async def test_a_definition_with_such_a_column_is_refused(path: str) -> None:
    api = Api()
    body = {"metadata": {"name": "peers.net.example.org"}, "spec": with_column(path)}
    answer = await api.answer("POST", CRDS, body)
    causes = json.loads(answer.body)["details"]["causes"]
    assert (answer.status, [cause["field"] for cause in causes]) == (
        422,
        ["spec.versions[0].additionalPrinterColumns[0].jsonPath"],
    )
    await define(api)
    assert (await api.answer("PATCH", f"{CRDS}/peers.net.example.org", {"spec": with_column(path)})).status == 422


async def test_one_that_was_stored_before_stays_and_its_column_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    with monkeypatch.context() as before:
        before.setattr(printer_paths, "refusal", lambda path: "")
        await define(api, with_column(REFUSED[0]))
    await api("PATCH", f"{CRDS}/peers.net.example.org", {"metadata": {"labels": {"a": "b"}}})
    await api("POST", PEERS, peer(free={"a": "a" * 40 + "!"}))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    answer = await api.server.handle(Request("GET", PEERS, {}, {"authorization": "Bearer secret", "accept": accept}))
    assert isinstance(answer, Response)
    assert json.loads(answer.body)["rows"][0]["cells"] == ["p", None]


@given(st.from_regex(PLAIN, fullmatch=True))
@settings(max_examples=50, deadline=None)
def test_names_of_fields_alone_are_not_refused_when_they_are_parsed_either(path: str) -> None:
    found = printer_paths._parsed(path)
    assert refusal(path) == "" and (found is None or not list(printer_paths._refusals(found)))


def test_to_take_names_of_fields_alone_no_library_is_imported() -> None:
    words = (
        "import sys; from podplane.apiserver.kinds.printer_paths import refusal; "
        "print(repr(refusal('.spec.addresses')), 'jsonpath' in sys.modules, bool(refusal('.a..b..c')), 'jsonpath' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["''", "False", "True", "True"]
