"""The text of the ConfigMap that a lab's control plane creates at its first start: every key, explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TEXT = """\
# The cluster's DNS. A change counts at once. A mistake is said by an Event of this ConfigMap and by `podplane dns status`;
# the last configuration without one goes on. A key that is not there has the value shown here in a comment.

# Names of pods, 10-244-1-2.default.pod.cluster.local: insecure (any address), verified (of pods that there are), disabled.
# pods: insecure

# Seconds that the cluster's records may be kept.
# ttl: 5

# A pod's question that falls through its search path is answered with the end of the path, which saves it the others.
# searchPath: true

# Servers for all other names: `machine` is those of the machine's resolv.conf; or 192.0.2.1, 192.0.2.1:5353, "[2001:db8::1]:5353", or
# with TLS tls://192.0.2.1#dns.example. They are asked in parallel, one after the other in this order (sequential), or in a random one.
# upstreams: [machine]
# order: parallel

# Zones that other servers answer for.
{zones}
# Names of addresses that are known here alone.
# hosts:
#   192.0.2.7: [db.corp.example, db]

# Names that stand for others; of a suffix all below it, too.
# rewrites:
#   - {{name: old.example, to: web.default.svc.cluster.local}}
#   - {{suffix: gone.example, to: new.example}}

# What is kept of the answers of other servers: seconds at most, of answers that a name does not exist, and of answers that are too
# old while no server answers; bytes of memory in all; prefetch: what is asked for often is asked again before its time is over.
# cache: {{maxSeconds: 3600, negativeMaxSeconds: 300, staleSeconds: 86400, bytes: 33554432, prefetch: true}}

# Questions that are logged (`podplane dns log`): of pods, for names and what is below them. "." is all names.
# log: {{pods: [default/web-1, default/api-*], names: [example.test]}}
"""


def text(zones: Mapping[str, Sequence[str]]) -> str:
    """The text, with these zones of other servers."""
    lines = [f"  {name}: [{', '.join(map(_quoted, servers))}]\n" for name, servers in zones.items()]
    return TEXT.format(zones="".join(("zones:\n", *lines)) if lines else "# zones:\n#   corp.example: [192.0.2.53]\n")


def _quoted(server: str) -> str:
    """A server as a value of YAML: brackets begin a list there, and `:` may end a key."""
    return f'"{server}"' if ":" in server else server
