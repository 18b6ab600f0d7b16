"""Of helm's releases goes what is podplane's alone."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from podplane.cli.cluster import helm
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.machine import removal

OF = {removal.RELEASE: "net", removal.RELEASED_IN: "networks"}


def packed(text: str) -> str:
    """As helm has it; without a time, as it is part of the names of tests, which all workers of a run must know alike."""
    return base64.b64encode(base64.b64encode(gzip.compress(text.encode(), mtime=0))).decode()


def secret(name: str, chart: str) -> dict[str, Any]:
    release = packed(json.dumps({"name": "net", "chart": {"metadata": {"name": chart}, "values": {}}, "manifest": "---"}))
    return {"metadata": {"name": name}, "data": {"release": release}}


class Api:
    """With Secrets of a release in a namespace, and a Service of names."""

    def __init__(self, namespace: str, *secrets: dict[str, Any], service: dict[str, str] | None = None) -> None:
        self.namespace, self.secrets, self.service = namespace, secrets, service
        self.deleted: list[tuple[str, str, str]] = []

    def raw(self, resource: str, namespace: str, *, limit: str, labelSelector: str, **query: str) -> bytes:
        """A page of one Secret."""
        assert (resource, labelSelector) in {("secrets", "owner=helm,name=net"), ("secrets", "owner=helm")}
        assert 0 < int(limit) <= 50, "each may have 1 MiB"
        start = int(query["continue"] or 0)
        found = self.secrets[start:] if namespace == self.namespace else []
        more = {"continue": str(start + 1)} if found[1:] else {}
        return json.dumps({"items": found[:1], "metadata": more}).encode()

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        if self.service is None:
            raise NotFound(404, "NotFound", name)
        return {"metadata": {"name": name, "annotations": self.service}}

    def delete(self, *which: str) -> None:
        self.deleted.append(which)


def removed(api: Api) -> tuple[list[str], list[str]]:
    warned: list[str] = []
    found = helm.release({"metadata": {"annotations": OF}})
    assert found is not None
    return list(helm.remove(api, found, warned.append)), warned


def test_a_release_of_podplane_goes_with_all_its_versions() -> None:
    api = Api("networks", secret("v1", "podplane"), secret("v2", "podplane"), service=OF)
    assert removed(api) == (["service kube-dns", "release net of helm"], [])
    assert api.deleted == [
        ("services", "kube-system", "kube-dns"),
        ("secrets", "networks", "v1"),
        ("secrets", "networks", "v2"),
    ]


@pytest.mark.parametrize("other", ["platform", ""])
def test_a_release_of_a_chart_with_others_stays_whole(other: str) -> None:
    api = Api("networks", secret("v1", "podplane"), secret("v2", other), service=OF)
    gone, (line,) = removed(api)
    assert not gone and not api.deleted
    assert line.endswith("or helm uninstall net --namespace networks, which removes all of it") and (other or "unknown") in line


def test_a_release_of_that_name_in_another_namespace_is_another_one() -> None:
    service = {**OF, removal.RELEASED_IN: "kube-system"}
    api = Api("kube-system", secret("v1", "podplane"), service=service)
    assert removed(api) == ([], []) and not api.deleted


def test_what_may_not_be_read_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api("networks", service=OF)

    def refuse(*_: str, **__: str) -> Any:
        raise ApiError(403, "Forbidden", "no right")

    monkeypatch.setattr(api, "raw", refuse)
    gone, (line,) = removed(api)
    assert not gone and not api.deleted and "helm uninstall net --namespace networks" in line


def test_a_release_that_no_object_names_is_found_by_its_chart() -> None:
    def of(release: str, name: str, chart: str) -> dict[str, Any]:
        found = secret(name, chart)
        return {**found, "metadata": {"name": name, "labels": {"owner": "helm", "name": release}}}

    versions = of("net", "a1", "podplane"), of("net", "a2", "podplane"), of("b", "b1", "podplane"), of("b", "b2", "platform")
    assert helm.of_podplane(Api("kube-system", *versions, of("c", "c1", "cilium"))) == [("net", "kube-system")]
    assert helm.of_podplane(Api("kube-system", secret("v1", "podplane"))) == [], "helm's own have a label with the name"


@pytest.mark.parametrize(
    "release",
    [
        "",
        "%",
        "YQ==",
        packed("["),
        packed("[" * 100_000),
        packed('{"chart":{"metadata":{"name":1}}}'),
        packed(" " * (helm.LARGEST + 1) + "{}"),
    ],
)
def test_of_what_is_no_release_no_chart_is_known(release: str) -> None:
    assert helm.chart({"metadata": {"name": "v1"}, "data": {"release": release}}) == ""


def test_helm_did_not_make_what_says_nothing_of_it() -> None:
    assert helm.release(None) is None and helm.release({"metadata": {}}) is None
    assert helm.release({"metadata": {"annotations": {removal.RELEASE: "a"}}}) == ("a", "kube-system")
