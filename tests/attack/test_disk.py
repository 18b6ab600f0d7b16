"""The disk that a lab writes to: full, or its database held by somebody. Nothing that runs ends, and it is said what is wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kubeapi.errors import ApiError
from tests.e2e.conftest import Podplane, running

pytestmark = pytest.mark.e2e
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def test_up_says_which_disk_is_full(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=16k tmpfs {tmp_path}; HOME={tmp_path} exec "$0" -m podplane up --nodes 1'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable],
        env={},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    why = f"no space is left on the disk of {tmp_path}/.local/state/podplane/lab: free some there, then `podplane up`"
    assert (done.returncode, done.stderr) == (2, f"podplane: {why}\n")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podplane]:
    """A lab of one node."""
    with running(tmp_path_factory, "--nodes", "1") as started:
        yield started


def test_a_lab_whose_database_is_held_goes_on_and_writes_again_afterwards(lab: Podplane) -> None:
    database = sqlite3.connect(lab.folder.store, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(ApiError, match="another process holds") as refused:
        lab.api.create("configmaps", "default", CONFIG)
    assert (refused.value.code, refused.value.reason) == (503, "ServiceUnavailable")
    assert "writes  refused: another process holds" in lab("status").stdout
    assert [one["metadata"]["name"] for one in lab.api.objects("nodes")] == ["node1"]
    database.close()
    lab.api.create("configmaps", "default", CONFIG)
    assert "refused" not in lab("status").stdout
