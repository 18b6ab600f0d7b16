"""Numbers of nf_tables' messages and attributes (include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h)."""

from __future__ import annotations

import struct

NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFT = NFNL_SUBSYS_NFTABLES << 8
NEWTABLE, GETTABLE, DELTABLE = NFT | 0, NFT | 1, NFT | 2
NEWCHAIN, GETCHAIN, DELCHAIN = NFT | 3, NFT | 4, NFT | 5
NEWRULE, GETRULE, DELRULE = NFT | 6, NFT | 7, NFT | 8
NEWSET, GETSET, DELSET = NFT | 9, NFT | 10, NFT | 11
NEWSETELEM, GETSETELEM, DELSETELEM = NFT | 12, NFT | 13, NFT | 14
GETGEN, GEN_ID = NFT | 16, 1
NEWOBJECT, GETOBJECT, DELOBJECT, GETFLOWTABLE, DELFLOWTABLE = NFT | 18, NFT | 19, NFT | 20, NFT | 23, NFT | 24

GENERIC = struct.Struct(">BBH")
"""struct nfgenmsg: family, version, resource."""
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
HOOKS = {family: {"input": 0, "output": 1} if family == "arp" else _HOOKS for family in FAMILIES}
"""By family: ARP has numbers of its own (NF_ARP_IN, NF_ARP_OUT)."""
HOOK_NAMES = {family: {number: name for name, number in own.items()} for family, own in HOOKS.items()}
POLICIES = {"drop": 0, "accept": 1}
POLICY_NAMES = {number: name for name, number in POLICIES.items()}

TABLE_NAME, TABLE_FLAGS, TABLE_USERDATA, TABLE_OWNER = 1, 2, 6, 7
TABLE_OWNED, TABLE_PERSISTENT = 2, 4
TABLE_PROTECTED = TABLE_OWNED | TABLE_PERSISTENT
"""Flags of a table: the socket that set the first one is the only one that may change the table, and a flush of all tables by others
leaves it out; with the second one (Linux 6.9) it stays, without an owner, when that socket is closed."""
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE, CHAIN_FLAGS, CHAIN_USERDATA = 1, 3, 4, 5, 7, 10, 12
CHAIN_OFFLOAD, CHAIN_BINDING = 2, 4
"""Flags of a chain: executed by a network card; part of a rule (`jump { … }`), created and deleted with it."""
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 4, 7
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LEN, SET_DATA_TYPE, SET_DATA_LEN = 1, 2, 3, 4, 5, 6, 7
SET_POLICY, SET_DESC, SET_ID, SET_DEFAULT_TIMEOUT, SET_GC_INTERVAL, SET_USERDATA = 8, 9, 10, 11, 12, 13
SET_OBJECT_TYPE, SET_EXPRESSION, SET_EXPRESSIONS = 15, 17, 18
SET_DESC_SIZE, SET_DESC_CONCAT, SET_FIELD_LEN = 1, 2, 1
SET_ANONYMOUS = 0x1
"""Part of a rule (`ip saddr { … }`), created and deleted with it."""
SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_EVAL, SET_CONCAT = 0x4, 0x8, 0x10, 0x20, 0x80
ELEM_LIST_TABLE, ELEM_LIST_SET, ELEM_LIST_ELEMENTS = 1, 2, 3
ELEM_KEY, ELEM_DATA, ELEM_FLAGS, ELEM_TIMEOUT, ELEM_USERDATA, ELEM_KEY_END = 1, 2, 3, 4, 6, 10
ELEM_INTERVAL_END, ELEM_CATCHALL = 1, 2
OBJECT_TABLE, OBJECT_NAME, OBJECT_TYPE, OBJECT_DATA, OBJECT_USES, OBJECT_HANDLE, OBJECT_USERDATA = 1, 2, 3, 4, 5, 6, 8
COUNTER_BYTES, COUNTER_PACKETS = 1, 2
FLOWTABLE_TABLE, FLOWTABLE_NAME = 1, 2
LIST_ELEM = 1

COMMENT_IN_TABLE, COMMENT_IN_CHAIN, COMMENT_IN_RULE, COMMENT_IN_SET, COMMENT_IN_ELEMENT, COMMENT_IN_OBJECT = 0, 0, 0, 7, 0, 0
"""Type of the comment in nft's user data (NFTNL_UDATA_*), each object's own numbering."""
SET_RANK = 80
SET_PACKED = 81
"""podplane's own type in the user data of sets; `nft` passes over types that it does not know (set_parse_udata_cb)."""
SET_KEY_ORDER, SET_DATA_ORDER = 0, 1
"""NFTNL_UDATA_SET_KEYBYTEORDER, …DATABYTEORDER: without them `nft list` can't print keys in host order."""
