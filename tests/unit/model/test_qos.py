"""Quality of service classes, as kube-apiserver tells them of the same pods (helper/qos/qos_test.go has the cases)."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.model.qos import qos_class

Resources = dict[str, dict[str, Any]]


def res(requests: str = "", limits: str = "") -> Resources:
    """Resources of texts such as "cpu=1 memory=1Gi"."""
    parts = {"requests": requests, "limits": limits}
    return {kind: dict(pair.split("=") for pair in text.split()) for kind, text in parts.items() if text}


FULL = "cpu=100m memory=100Mi"


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([res()], "BestEffort"),
        ([res("cpu=0 memory=0", "cpu=0")], "BestEffort"),
        ([res("example.org/gpu=1", "example.org/gpu=1")], "BestEffort"),
        ([res(FULL, FULL)], "Guaranteed"),
        ([res("cpu=0.1 memory=104857600", FULL)], "Guaranteed"),
        ([res(FULL, FULL), res(FULL, FULL)], "Guaranteed"),
        ([res(FULL, FULL), res()], "Burstable"),
        ([res(FULL)], "Burstable"),
        ([res("", FULL)], "Guaranteed"),
        ([res("cpu=0", FULL)], "Burstable"),
        ([res("cpu=100m", "cpu=100m")], "Burstable"),
        ([res("memory=100Mi", "cpu=100m")], "Burstable"),
        ([res("cpu=100m memory=100Mi", "cpu=200m memory=100Mi")], "Burstable"),
        ([res(FULL + " example.org/gpu=1", FULL + " example.org/gpu=1")], "Guaranteed"),
    ],
)
def test_by_containers(containers: list[Resources], expected: str) -> None:
    assert qos_class(containers) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (res(FULL, FULL), "Guaranteed"),
        (res(FULL), "Burstable"),
        (res("cpu=1", FULL), "Burstable"),
        (res("", "cpu=1"), "Burstable"),
    ],
)
def test_what_the_pod_says_itself_stands_for_its_containers(own: Resources, expected: str) -> None:
    assert qos_class([res(), res(FULL, FULL)], own) == expected
