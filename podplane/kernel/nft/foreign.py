"""Changes of nf_tables that podplane itself never makes. A lab makes them as another program would: over sockets of their own."""

from __future__ import annotations

from podplane.kernel.errors import from_errno
from podplane.kernel.namespace import Namespace
from podplane.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, Message, Socket, be64, nested, text
from podplane.kernel.nft import constants as c
from podplane.kernel.nft import decode
from podplane.state.nft import Table

NETLINK_NETFILTER = 12
AF_UNSPEC = 0
LIST_ELEMENT, EXPRESSION_NAME, EXPRESSION_DATA = 1, 1, 2
QUOTA_BYTES = 1
"""NFTA_QUOTA_BYTES."""


def flush_ruleset(namespace: Namespace) -> None:
    """Delete all tables with all that is in them, whosever they are (`nft flush ruleset`). KernelError when that is refused."""
    _commit(namespace, Message(c.DELTABLE, 0, c.GENERIC.pack(AF_UNSPEC, 0, 0)), "flush the ruleset")


def table_names(namespace: Namespace) -> list[str]:
    """All tables, whosever they are, as `family name`."""
    with namespace.run(Socket, NETLINK_NETFILTER) as socket:
        rows = socket.dump(c.GETTABLE, c.GENERIC.pack(AF_UNSPEC, 0, 0))
    found = (decode.table_from(payload) for _, payload in rows)
    return sorted(f"{one.family} {one.table}" for one in found if isinstance(one, Table))


def append_quota(namespace: Namespace, family: str, table: str, chain: str, quota: int) -> None:
    """Append a rule whose one expression is a quota of so many bytes, which changes no verdict. KernelError when refused."""
    expression = nested(LIST_ELEMENT, text(EXPRESSION_NAME, "quota"), nested(EXPRESSION_DATA, be64(QUOTA_BYTES, quota)))
    header = c.GENERIC.pack(c.FAMILIES[family], 0, 0)
    parts = (text(c.RULE_TABLE, table), text(c.RULE_CHAIN, chain), nested(c.RULE_EXPRESSIONS, expression))
    message = Message(c.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, header + b"".join(parts))
    _commit(namespace, message, f"append a rule to {family} {table} {chain}")


def _commit(namespace: Namespace, message: Message, what: str) -> None:
    edge = c.GENERIC.pack(0, 0, c.NFNL_SUBSYS_NFTABLES)
    with namespace.run(Socket, NETLINK_NETFILTER) as socket:
        refused = socket.transaction([Message(c.BATCH_BEGIN, 0, edge), message, Message(c.BATCH_END, 0, edge)])
    if refused:
        raise from_errno(what, refused[0].errno, refused[0].text)
