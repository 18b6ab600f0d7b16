"""Features of tunnels of the node: set and read back one by one, each by a system call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from podplane.kernel.errors import KernelError, NotFound, from_errno
from podplane.kernel.ethtool import KINDS as TUNNELS
from podplane.kernel.parts import LinkFeatures
from podplane.state.network import Link, SoftwareChecksum
from podplane.state.operations import Failure, Operation, Report
from podplane.state.value import Identity, Value


def apply(features: LinkFeatures, operations: Sequence[Operation]) -> Report:
    """Each is set and read back. Of a link that is gone, nothing is left to take away."""
    report = Report()
    for operation in operations:
        error = _set(features, operation)
        if error is None or (isinstance(error, NotFound) and operation.new is None):
            report.applied.append(operation)
        else:
            report.failed.append(Failure(operation, error))
    return report


def _set(features: LinkFeatures, operation: Operation) -> KernelError | None:
    link, on = str(getattr(operation.value, "link", "")), operation.new is not None
    what = f"checksums in software on {link}: {'on' if on else 'off'}"
    if operation.value.netns:
        return KernelError(what, "this is done for links of the node's own namespace alone")
    try:
        features.set_software_checksum(link, on)
    except OSError as error:
        return from_errno(what, error.errno or 0)
    is_kept = features.has_software_checksum(link) != on
    return KernelError(what, "the link did not take it over") if is_kept else None


def tunnels(found: Iterable[Value]) -> list[str]:
    """The names of tunnels among these."""
    return [one.name for one in found if isinstance(one, Link) and one.kind in TUNNELS]


def read(features: LinkFeatures, names: Iterable[str]) -> dict[Identity, Value]:
    """What these tunnels do."""
    values = [SoftwareChecksum(link=name) for name in names if features.has_software_checksum(name)]
    return {value.identity: value for value in values}
