"""What helm keeps of the release that podplane was installed with, and removes with it: only where podplane is all of that release.

A release may be of a chart that has podplane among others. What helm knows of it stays then: with it helm removes and upgrades the others.
A Secret has a version of the release: base64, as Secrets have it, of base64 of gzip of JSON (helm, pkg/storage/driver/util.go).
"""

from __future__ import annotations

import base64
import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from podplane.cli.cluster.reads import page_by_page
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.machine import removal
from podplane.machine.removal import NAMESPACE

CHART = "podplane"
OWNED = "owner=helm"
SELECTED = f"{OWNED},name="
"""Labels of the Secrets in which helm keeps what it knows of a release."""
VERSIONS = "20"
"""So many Secrets are read at once, as each may have 1 MiB."""
LARGEST = 32 << 20
"""Bytes of JSON: a Secret has at most 1 MiB, and gzip makes 1,000 times as much of it if somebody wants that."""
GZIP = 31
"""zlib, `wbits`: a header of gzip, and the largest window."""
SERVICE = "kube-dns"


class Release(NamedTuple):
    """Where helm keeps what it knows."""

    name: str
    namespace: str


class _Metadata(msgspec.Struct):
    name: str = ""


class _Chart(msgspec.Struct):
    metadata: _Metadata


class _Version(msgspec.Struct):
    chart: _Chart


def release(made: Mapping[str, Any] | None) -> Release | None:
    """That which an object is of; None where helm did not make it."""
    said = (made or {}).get("metadata", {}).get("annotations") or {}
    name = str(said.get(removal.RELEASE) or "")
    return Release(name, str(said.get(removal.RELEASED_IN) or NAMESPACE)) if name else None


def of_podplane(client: Any) -> list[Release]:
    """Those whose chart is podplane alone, which an object of podplane's need not name: `kubectl replace` takes its annotations away.
    They are in this namespace, as the chart refuses others. Raises ApiError."""
    charts: dict[str, set[str]] = {}
    for one in _versions(client, NAMESPACE, OWNED):
        name = (one["metadata"].get("labels") or {}).get("name", "")
        charts.setdefault(name, set()).add(chart(one))
    return [Release(name, NAMESPACE) for name, found in charts.items() if name and found == {CHART}]


def chart(secret: Mapping[str, Any]) -> str:
    """The name of the chart of a version of a release; "" when that is not known."""
    try:
        packed = base64.b64decode(
            base64.b64decode((secret.get("data") or {}).get("release") or "", validate=True), validate=True
        )
        text = zlib.decompressobj(GZIP).decompress(packed, LARGEST)
        return msgspec.json.decode(text, type=_Version).chart.metadata.name
    except (ValueError, zlib.error, msgspec.MsgspecError, RecursionError):
        return ""


def remove(client: Any, found: Release, warn: Callable[[str], None]) -> Iterator[str]:
    """Delete the Service of names that helm made, and what it knows of the release; what goes, in words. `warn` of what stays."""
    command = f"helm uninstall {found.name} --namespace {found.namespace}"
    try:
        selected = _versions(client, found.namespace, f"{SELECTED}{found.name}")
        versions = {one["metadata"]["name"]: chart(one) for one in selected}
    except ApiError as error:
        warn(f"helm still knows the release {found.name} ({error}): {command}")
        return
    if others := sorted({one or "an unknown one" for one in versions.values()} - {CHART}):
        warn(
            f"the release {found.name} of helm stays, as its chart is not {CHART}, but {', '.join(others)}: "
            f"take {CHART} out of that, or {command}, which removes all of it"
        )
        return
    yield from _service(client, found)
    if versions:
        for name in versions:
            with contextlib.suppress(NotFound):
                client.delete("secrets", found.namespace, name)
        yield f"release {found.name} of helm"


def _versions(client: Any, namespace: str, labels: str) -> Iterator[Mapping[str, Any]]:
    return page_by_page(client, "secrets", namespace, VERSIONS, labelSelector=labels)


def _service(client: Any, found: Release) -> Iterator[str]:
    with contextlib.suppress(NotFound):
        if release(client.get("services", NAMESPACE, SERVICE)) == found:
            client.delete("services", NAMESPACE, SERVICE)
            yield f"service {SERVICE}"
