"""Which security contexts of containers are refused, with the place and the words of Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from podplane.apiserver.kinds.pods import check_pod_spec

KEPT = {"allowPrivilegeEscalation": False}
PRIVILEGED = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
ADMIN = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"


def added(*names: str) -> dict[str, Any]:
    return {"capabilities": {"add": list(names)}}


@pytest.mark.parametrize(
    ("context", "whys"),
    [
        ({**KEPT, "privileged": True}, [PRIVILEGED]),
        ({**KEPT, **added("CHOWN", "CAP_SYS_ADMIN")}, [ADMIN]),
        ({**KEPT, "privileged": True, **added("CAP_SYS_ADMIN")}, [PRIVILEGED, ADMIN]),
        ({**KEPT, **added("SYS_ADMIN")}, []),
        ({**KEPT, "privileged": False, "capabilities": {"drop": ["CAP_SYS_ADMIN"]}}, []),
        ({"privileged": True, **added("CAP_SYS_ADMIN")}, []),
        ({"allowPrivilegeEscalation": True, "privileged": True}, []),
        ({}, []),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_what_is_privileged_can_not_be_kept_from_privileges(context: dict[str, Any], whys: list[str], kind: str) -> None:
    spec: dict[str, Any] = {"containers": [{"name": "other", "image": "x"}]}
    spec[kind] = [{"name": "main", "image": "x", "securityContext": context}]
    causes = list(check_pod_spec(spec, "spec"))
    assert [(cause.field, cause.message.rpartition(": ")[2]) for cause in causes] == [
        (f"spec.{kind}[0].securityContext", why) for why in whys
    ]
    assert all(cause.message.startswith("Invalid value: ") for cause in causes)
