"""Numbers and headers of rtnetlink (include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,fib_rules,
pkt_sched,pkt_cls}.h, tc_act/tc_mirred.h)."""

from __future__ import annotations

import struct

AF_INET, AF_INET6, AF_BRIDGE = 2, 10, 7
FAMILY = {4: AF_INET, 6: AF_INET6}

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNETCONF, RTM_DELNETCONF = 80, 81
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTM_GETNSID = 90

LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change mask."""
IFF_UP, IFF_LOWER_UP = 1, 1 << 16
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO = 1, 3, 4, 10, 12, 18
IFLA_OPERSTATE, IFLA_IFALIAS, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 16, 20, 27, 28, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_LINK_NETNSID = 31, 32, 37
NETNSA_NSID, NETNSA_FD = 1, 3
RTEXT_FILTER_SKIP_STATS = 8
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_BRPORT_MODE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_MCAST_FLOOD = 4, 8, 9, 27
IFLA_BRPORT_BCAST_FLOOD, IFLA_BRPORT_GROUP_FWD_MASK, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_LOCKED = 30, 31, 33, 39
IFLA_BR_MCAST_SNOOPING = 23
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 3, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 15, 17
GRE_KINDS = ("gre", "ip6gre")
"""Of IPv4 and of IPv6 between tunnel ends."""
IFLA_GRE_COLLECT_METADATA = 18

ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD = 2

ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags."""
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU = 2
RTA_VIA, RTA_ENCAP_TYPE, RTA_ENCAP = 18, 21, 22
LWTUNNEL_ENCAP = {4: 2, 6: 4}
"""LWTUNNEL_ENCAP_IP and LWTUNNEL_ENCAP_IP6 (linux/lwtunnel.h), by the IP version of the tunnel's ends."""
LWTUNNEL_ID, LWTUNNEL_DST, LWTUNNEL_SRC, LWTUNNEL_TTL, LWTUNNEL_FLAGS = 1, 2, 3, 4, 6
"""LWTUNNEL_IP_* and LWTUNNEL_IP6_*, which have the same numbers."""
ROUTE_TYPES = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
"""RTN_* that podplane makes."""
ROUTE_TYPE_NAMES = {number: name for name, number in ROUTE_TYPES.items()}
OTHER_ROUTE_TYPE_NAMES = {2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 9: "throw", 10: "nat"}
ALL_ROUTE_TYPES = ROUTE_TYPES | {name: number for number, name in OTHER_ROUTE_TYPE_NAMES.items()}
RTPROT_KERNEL = 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTNH_F_ONLINK = 4
IP6_DEFAULT_METRIC = 1024
"""IP6_RT_PRIO_USER: what IPv6 makes of metric 0."""

NEIGHBOUR = struct.Struct("=BxxxiHBB")
"""struct ndmsg: family, index, state, flags, type."""
NDA_DST, NDA_LLADDR, NDA_VLAN, NDA_MASTER, NDA_PROTOCOL = 1, 2, 5, 9, 12
NUD_PERMANENT, NUD_NOARP, NUD_FAILED = 0x80, 0x40, 0x20
NTF_SELF, NTF_MASTER, NTF_PROXY, NTF_EXT_LEARNED = 2, 4, 8, 0x10

RULE = struct.Struct("=BBBBBBBBI")
"""struct fib_rule_hdr: family, destination length, source length, tos, table, -, -, action, flags."""
FRA_DST, FRA_SRC, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 1, 2, 6, 10, 15, 16, 21
FR_ACT_TO_TBL = 1

TRAFFIC = struct.Struct("=BxxxiIII")
"""struct tcmsg: family, index, handle, parent, info (of a filter: its priority, and the protocol in network order)."""
TC_H_ROOT, TC_H_CLSACT, TC_H_INGRESS, TC_H_EGRESS = 0xFFFF_FFFF, 0xFFFF_FFF1, 0xFFFF_FFF2, 0xFFFF_FFF3
"""Parents: of a link's root qdisc, of clsact, of filters in its two halves (TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_*))."""
CLSACT_HANDLE = 0xFFFF_0000
TCA_KIND, TCA_OPTIONS = 1, 2
RATE = struct.Struct("=BBHhHI")
"""struct tc_ratespec: cell log, link layer, overhead, cell align, least size, byte/s."""
TBF = struct.Struct("=12s12sIII")
"""struct tc_tbf_qopt: rate, peak rate, limit in byte, burst in ticks, MTU in ticks."""
TC_LINKLAYER_ETHERNET = 1
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TICK_NANOSECONDS = 64
"""PSCHED_SHIFT: the kernel says a burst as the time that it takes, in ticks of 32 bits."""
U32_SELECTOR = struct.Struct("=BBBxHHhhI")
"""struct tc_u32_sel: flags, offset shift, number of keys, offset mask, offset, its offset, hash offset, hash mask."""
U32_KEY = struct.Struct("=IIii")
"""struct tc_u32_key: mask, value, offset, mask of the offset."""
TC_U32_TERMINAL = 1
TCA_U32_SEL, TCA_U32_ACT = 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
MIRRED = struct.Struct("=IIiiiiI")
"""struct tc_mirred: index, capabilities, action, references, bindings, what to do, index of the link."""
TC_ACT_STOLEN, TCA_EGRESS_REDIR = 4, 1
