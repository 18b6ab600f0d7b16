"""The plans of a small cluster, carried out by the fake kernel, as text: tests/golden/*.txt.

GOLDEN_UPDATE=1 writes the files anew; what changed is then for the reviewer to read.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podplane.kernel.door import Kernel
from podplane.kernel.fakes.world import FakeNamespace, FakeOpener
from podplane.state.operations import diff
from tests.plans import FAMILIES, OWNER, build, uplink, wanted

GOLDEN = Path(__file__).parents[2] / "golden"


def fake(versions: tuple[int, ...]) -> tuple[Kernel, FakeNamespace, list[FakeNamespace]]:
    """A fake node with two pods, all built."""
    opener = FakeOpener()
    host, pods = opener.namespace(), [opener.namespace(), opener.namespace()]
    kernel = Kernel(host, opener)
    report = build(kernel, list(pods), versions)
    assert not report.failed, report.failed
    return kernel, host, pods


@pytest.mark.parametrize("name", FAMILIES)
def test_golden(name: str) -> None:
    _, host, pods = fake(FAMILIES[name])
    text = "# node1\n" + host.objects.dump() + "\n# pod1\n" + pods[0].objects.dump()
    path = GOLDEN / f"node-{name}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", FAMILIES)
def test_applying_twice_does_nothing_and_deleting_all_leaves_nothing(name: str) -> None:
    versions = FAMILIES[name]
    kernel, host, pods = fake(versions)
    want = wanted(versions)
    found = kernel.read(OWNER)
    missing = [v for i, v in want.items() if not v.netns and i[0] != "Sysctl" and not kernel.matches(v, found[i])]
    assert missing == []
    before = host.objects.dump()
    assert not kernel.apply(diff(want, want)).applied
    assert host.objects.dump() == before
    report = kernel.apply(diff(want, {}))
    assert not report.failed, report.failed
    assert kernel.read(OWNER) == {}
    assert "eth0" not in pods[0].objects.dump()
    assert {i for i in host.objects.network if i[0] != "Sysctl"} == set(uplink(versions))
