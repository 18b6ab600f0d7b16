"""Which volume mounts of containers are refused, with the place and the words of Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.kinds.pods import check_pod_spec


@pytest.mark.parametrize(
    ("mounts", "whys"),
    [
        ([{"mountPath": "/a"}, {"mountPath": "/b", "subPath": "x/y"}], []),
        ([{"mountPath": "relative"}, {"mountPath": "../up"}], []),  # a kubelet begins them at /
        ([{"mountPath": ""}], ["[0].mountPath: Required value"]),
        ([{"mountPath": "/a"}, {"mountPath": "/a"}], ['[1].mountPath: Invalid value: "/a": must be unique']),
        ([{"mountPath": "/a", "subPath": "/x"}], ['[0].subPath: Invalid value: "/x": must be a relative path']),
        ([{"mountPath": "/a", "subPath": "x/../y"}], ["[0].subPath: Invalid value: \"x/../y\": must not contain '..'"]),
        ([{"mountPath": "/a", "subPath": "..x/y.."}], []),
        (
            [{"mountPath": "/a", "subPathExpr": "$(A)/.."}],
            ["[0].subPathExpr: Invalid value: \"$(A)/..\": must not contain '..'"],
        ),
        (
            [{"mountPath": "/a", "subPath": "x", "subPathExpr": "y"}],
            ['[0].subPathExpr: Invalid value: "y": subPathExpr and subPath are mutually exclusive'],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_where_nothing_can_be_mounted(mounts: list[dict[str, Any]], whys: list[str], kind: str) -> None:
    spec: dict[str, Any] = {"containers": [{"name": "other", "image": "x"}], "volumes": [{"name": "v", "emptyDir": {}}]}
    spec[kind] = [{"name": "main", "image": "x", "volumeMounts": [{"name": "v", **mount} for mount in mounts]}]
    causes = list(check_pod_spec(spec, "spec"))
    assert [f"{cause.field}: {cause.message}" for cause in causes] == [f"spec.{kind}[0].volumeMounts{why}" for why in whys]
