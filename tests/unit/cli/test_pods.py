"""What `run` says of a pod that does not come to run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from podplane.cli.pods import create_and_wait
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder


@pytest.mark.parametrize(
    ("lab", "namespace", "command"),
    [
        ("lab", "default", "podplane delete pod web"),
        ("other", "default", "podplane delete --name other pod web"),
        ("other", "far", "podplane delete --name other pod web -n far"),
    ],
)
def test_the_command_that_removes_it_is_of_its_lab_and_namespace(lab: str, namespace: str, command: str) -> None:
    wanted: dict[str, Any] = {"metadata": {"name": "web", "namespace": namespace, "uid": "1"}, "spec": {}}
    failed = wanted | {"status": {"phase": "Failed"}}
    client = SimpleNamespace(create=lambda *words: wanted, poll=lambda *words: [[failed]])
    with pytest.raises(LabError, match=rf"^pod web does not run: .*\(it stays; `{command}` removes it\)$"):
        create_and_wait(Folder.named(lab), client, [wanted])
