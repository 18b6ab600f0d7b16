"""The kernel's number of a network namespace, and namespaces that are opened by a path."""

from __future__ import annotations

import pytest

from podplane.kernel.namespace import NetworkNamespace, Workers

pytestmark = pytest.mark.kernel


def test_a_number_tells_one_namespace_from_all_others_there_ever_were() -> None:
    workers, seen = Workers(1), set[int]()
    for _ in range(4):
        with NetworkNamespace.create(workers) as one:
            path = f"/proc/self/fd/{one.fd}"
            with NetworkNamespace.open(path, workers) as other:
                assert one.cookie == other.cookie
            seen.add(one.cookie)
    assert len(seen) == 4
    workers.close()


def test_what_is_no_namespace_is_refused_when_it_is_entered() -> None:
    workers = Workers(1)
    with NetworkNamespace.open("/dev/null", workers) as one, pytest.raises(OSError, match="setns"):
        _ = one.cookie
    with pytest.raises(FileNotFoundError):
        NetworkNamespace.open("/proc/self/fd/999999", workers)
    workers.close()
