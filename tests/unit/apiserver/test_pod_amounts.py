"""Amounts of a pod that can't be."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.kinds.pods import check_pod_spec

NEGATIVE = "must be greater than or equal to 0"


def said(resources: dict[str, Any], size: str = "1Mi") -> list[tuple[str, str]]:
    """Of a container, and of an emptyDir."""
    container = {"name": "main", "image": "host/sh", "resources": resources}
    spec = {"containers": [container], "volumes": [{"name": "own", "emptyDir": {"sizeLimit": size}}]}
    return [(cause.field, cause.message) for cause in check_pod_spec(spec, "spec")]


@pytest.mark.parametrize("kind", ["limits", "requests"])
@pytest.mark.parametrize("amount", ["-1", "-1000Gi", "-1m"])
def test_negative_amounts_are_refused(kind: str, amount: str) -> None:
    ((field, message),) = said({kind: {"memory": amount}})
    assert field == f"spec.containers[0].resources.{kind}[memory]" and message.endswith(NEGATIVE)


def test_what_is_requested_is_not_above_the_limit() -> None:
    ((field, message),) = said({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1001m", "memory": "1024Mi"}})
    assert field == "spec.containers[0].resources.requests" and message.endswith("must be less than or equal to cpu limit of 1")


def test_a_size_of_an_empty_dir_is_not_negative() -> None:
    assert said({"limits": {"cpu": "0"}}, "0") == []
    assert [field for field, _ in said({}, "-1")] == ["spec.volumes[0].emptyDir.sizeLimit"]
