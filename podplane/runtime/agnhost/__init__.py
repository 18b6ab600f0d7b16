"""`/agnhost`: the program of Kubernetes' own network tests, in behaviour; one program with many subcommands.

What the image of that name does is described in kubernetes/kubernetes, test/images/agnhost/README.md; this is another
implementation, of the subcommands that have to do with the network.
"""

from __future__ import annotations

from collections.abc import Mapping

from podplane import __version__
from podplane.kernel.zygote_child import Ready
from podplane.runtime.agnhost import (
    connect,
    flags,
    grpc_health_checking,
    guestbook,
    hostname,
    in_cluster,
    liveness,
    logs_generator,
    mounttest,
    net,
    netexec,
    no_snat,
    port_forward_tester,
    porter,
    resolver,
    simple,
    webserver,
)
from podplane.runtime.agnhost.common import CannotServe, Context, Subcommand, complain, say

SUBCOMMANDS: Mapping[str, Subcommand] = {
    "connect": Subcommand(connect.run, "Connect to <host>:<port>, and say why it failed", connect.FLAGS, arguments=1),
    "dns-server-list": Subcommand(resolver.servers, "Print the DNS servers"),
    "dns-suffix": Subcommand(resolver.suffixes, "Print the DNS search list"),
    "entrypoint-tester": Subcommand(simple.entrypoint_tester, "Print the whole command", arguments=None),
    "etc-hosts": Subcommand(resolver.hosts, "Print the hosts file"),
    "grpc-health-checking": Subcommand(grpc_health_checking.run, "Serve grpc.health.v1.Health", grpc_health_checking.FLAGS),
    "guestbook": Subcommand(guestbook.run, "Keep words, with replicas, and a frontend that asks for them", guestbook.FLAGS),
    "inclusterclient": Subcommand(
        in_cluster.run_client, "Ask the API server's /healthz again and again", in_cluster.CLIENT_FLAGS
    ),
    "liveness": Subcommand(liveness.run, "Serve /healthz, which is well for 10 seconds"),
    "logs-generator": Subcommand(
        logs_generator.run, "Write lines of a log evenly", logs_generator.FLAGS, short=logs_generator.SHORT
    ),
    "mounttest": Subcommand(mounttest.run, "Make files, and say what files are", mounttest.FLAGS),
    "net": Subcommand(net.run, "Hold connections in a state, or serve that over HTTP", net.FLAGS),
    "netexec": Subcommand(netexec.run, "Answer and ask over HTTP, UDP and SCTP", netexec.FLAGS),
    "nettest": Subcommand(in_cluster.run_nettest, "Reach all endpoints of a Service", in_cluster.NETTEST_FLAGS),
    "no-snat-test": Subcommand(no_snat.run, "Say whether other pods see this pod's own address", no_snat.FLAGS),
    "no-snat-test-proxy": Subcommand(no_snat.run_proxy, "Ask a no-snat-test for others", no_snat.PROXY_FLAGS),
    "pause": Subcommand(simple.pause, "Wait to be ended"),
    "port-forward-tester": Subcommand(port_forward_tester.run, "Send chunks on one connection"),
    "porter": Subcommand(porter.run, "Serve what SERVE_PORT_<port>=<text> in the environment says", porter.FLAGS),
    "serve-hostname": Subcommand(hostname.run, "Serve the host's name", hostname.FLAGS),
    "tcp-reset": Subcommand(simple.tcp_reset, "Reset TCP connections", simple.RESET_FLAGS),
    "test-webserver": Subcommand(webserver.run, "Serve the files of the working directory", webserver.FLAGS),
}
HELP, VERSION = ("help", "--help", "-h"), ("--version", "-v")


def main(argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    """Run the subcommand that the second word names; without one, tell which there are."""
    name = argv[1] if len(argv) > 1 else HELP[0]
    if name in HELP or name in VERSION:
        ready()
        say(_help(argv[2] if len(argv) > 2 else "") if name in HELP else f"agnhost of podplane, version {__version__}")
        return 0
    if name not in SUBCOMMANDS:
        complain(f"unknown command {name!r} for agnhost: known are {', '.join(SUBCOMMANDS)}")
        return 1
    return _run(name, argv, environment, ready)


def _run(name: str, argv: list[str], environment: Mapping[str, str], ready: Ready) -> int:
    subcommand, words = SUBCOMMANDS[name], argv[2:]
    if subcommand.arguments is not None and any(word in HELP[1:] for word in words):
        ready()
        say(_help(name))
        return 0
    try:
        found = (
            flags.Flags({})
            if subcommand.arguments is None
            else flags.parse(words, subcommand.flags, subcommand.arguments, subcommand.short)
        )
        for flag in found.without_effect:
            complain(f"agnhost {name}: {flag} changes nothing here: all is logged")
        return subcommand.run(Context(found, tuple(argv), environment, ready))
    except (flags.UsageError, CannotServe) as error:
        complain(f"agnhost {name}: {error}")
        return 1


def _help(name: str) -> str:
    if name not in SUBCOMMANDS:
        lines = [f"  {known:18} {subcommand.about}" for known, subcommand in SUBCOMMANDS.items()]
        return "\n".join(["agnhost <command> [flags]", "", *lines, "", "agnhost help <command> tells its flags"])
    subcommand = SUBCOMMANDS[name]
    lines = [f"  --{flag:22} {str(default).lower() or '(nothing)'}" for flag, default in subcommand.flags.items()]
    return "\n".join(
        [
            f"agnhost {name}: {subcommand.about}",
            *(["", "Flags, and what they are without being given:"] if lines else []),
            *lines,
        ]
    )
