"""Between a node and the API nothing passes; what pods of the node send and get is forwarded, and passes.

A table of nf_tables in the node's namespace drops it, which is nobody's but the lab's. Functions block for some milliseconds.
"""

from __future__ import annotations

import ipaddress

from podplane.kernel.door import Kernel
from podplane.kernel.namespace import Namespace
from podplane.kernel.opener import KernelOpener
from podplane.state.nft import DROP, Chain, Cmp, Hook, Payload, Table
from podplane.state.nft_nat import PORT_OFFSET, PORT_SIZE, SOURCE_PORT_OFFSET, protocol
from podplane.state.nft_rules import TRANSPORT_HEADER, Row, destination_in, family, rule, source_in, verdict
from podplane.state.operations import Operation
from podplane.state.value import Value

FAMILY, TABLE = "inet", "podplane-lab-fault"
PRIORITY = -300
"""Before all else but fragments (NF_IP_PRI_RAW)."""


def set_up(namespace: Namespace, host: str, port: int) -> None:
    """Have nothing pass to or from this address and port; where nothing does already, nothing changes. KernelError when it can't be."""
    lift(namespace)
    carry_out(namespace, [Operation(None, one) for one in _values(host, port)])


def lift(namespace: Namespace) -> None:
    """Let everything pass."""
    carry_out(namespace, [Operation(Table(family=FAMILY, table=TABLE), None)], missing_ok=True)


def _values(host: str, port: int) -> list[Value]:
    network = ipaddress.ip_network(host)
    directions = (
        ("output", destination_in(network), PORT_OFFSET),
        ("input", source_in(network), SOURCE_PORT_OFFSET),
    )
    return [
        Table(family=FAMILY, table=TABLE),
        *(
            Chain(
                family=FAMILY,
                table=TABLE,
                name=hook,
                hook=Hook("filter", hook, PRIORITY),
                rules=(
                    rule(
                        family(network.version),
                        row,
                        protocol("tcp"),
                        _port(offset, port),
                        verdict(DROP),
                        comment="the API is out of reach",
                    ),
                ),
            )
            for hook, row, offset in directions
        ),
    ]


def _port(offset: int, port: int) -> Row:
    return (Payload(dreg=1, base=TRANSPORT_HEADER, offset=offset, length=PORT_SIZE), Cmp(data=port.to_bytes(PORT_SIZE, "big")))


def carry_out(namespace: Namespace, operations: list[Operation], *, missing_ok: bool = False) -> None:
    """Change something by a door of its own. KernelError when that is refused; `missing_ok`: nothing is missed."""
    kernel = Kernel(namespace, KernelOpener())
    try:
        report = kernel.apply(operations)
    finally:
        kernel.close()
    if report.failed and not missing_ok:
        raise report.failed[0].error
