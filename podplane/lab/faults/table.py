"""The faults that a lab can make, a row each: what the command line offers, and what it says about them.

`actions` has for each row the function that makes the fault, and the one that undoes it. They are apart because they import
the kernel door, and a command must feel instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from podplane.lab.faults.arguments import (
    NEW_IP,
    NEW_MAC,
    ONE_WAY,
    UNSEEN,
    FaultError,
    any_text,
    loss_of,
    mtu_of,
    port_of,
    seconds_of,
)

CLEAR = "clear"
"""In a request, in place of a fault: undo all active ones."""


class Fault(msgspec.Struct, frozen=True):
    """One fault. `undo` says what `--clear` does about it; without it the fault is over at once, and is never active.

    `argument` is the placeholder of the option's value, which may be left out unless it is `needed`; `flags` are further options that go
    with it, and what they mean. Value and flags together, with spaces between, are the fault's argument: `check` raises FaultError for one
    that makes no sense. `not_during` names the active faults that must be cleared before; `aliases` are other names of the option.
    `look_at` says where one sees it; `look_at_with` that of a flag with which it is seen elsewhere.
    """

    name: str
    help: str
    look_at: str
    undo: str = ""
    argument: str = ""
    check: Callable[[str], object] = any_text
    not_during: tuple[str, ...] = ()
    needed: bool = False
    flags: Mapping[str, str] = {}  # never changed
    aliases: tuple[str, ...] = ()
    look_at_with: Mapping[str, str] = {}  # never changed

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name}"

    @property
    def usage(self) -> str:
        """The option with its placeholder, and the flags that go with it."""
        value = self.argument if self.needed else f"[{self.argument}]" if self.argument else ""
        return " ".join(filter(None, (self.option, value, *(f"[{flag}]" for flag in self.flags))))

    def seen_at(self, argument: str) -> str:
        """Where one sees it, with placeholders."""
        return next((self.look_at_with[word] for word in argument.split() if word in self.look_at_with), self.look_at)

    def refuse(self, argument: str) -> None:
        """FaultError unless this is an argument of it."""
        words = argument.split()
        values = [word for word in words if not word.startswith("--")]
        if values and not self.argument:
            raise FaultError(f"{self.option} takes no value")
        if len(values) > 1 or not self.flags.keys() >= {*words} - {*values}:
            raise FaultError(f"{self.option} does not go with {argument[:40]!r}: write {self.usage}")
        if self.needed and not values:
            raise FaultError(f"{self.option} needs a value: write {self.usage}")
        if values:
            self.check(argument)


CUT_API, UPLINK_DOWN, STOP_AGENT, MTU = "cut-api", "uplink-down", "stop-agent", "mtu"
STOP_NAME_SERVER, POWER_OFF = "stop-name-server", "power-off"
"""While the power is off, nothing else can be done to a node."""
REPAIRED = "`kubectl describe node {node}` has a Repaired event"
TABLES_REPAIRED = "`{check}` passes; before Linux 6.9, which keeps tables for their owner, " + REPAIRED
FAULTS: tuple[Fault, ...] = (
    Fault(
        "restart-agent",
        "The node's agent ends and starts again; its packets must not notice.",
        "`{check}` passes",
        not_during=(CUT_API, STOP_AGENT),
    ),
    Fault(
        "kill-agent",
        "The node's agent, which is a process (`up --agents processes`), is killed; another one starts at once.",
        "`{check}` passes, and the new agent wrote nothing",
        not_during=(STOP_AGENT,),
        aliases=("kill",),
    ),
    Fault(
        STOP_AGENT,
        "The node's agent, which is a process, is stopped (SIGSTOP), for DURATION or until --clear.",
        "packets still pass; its load balancers are at another node; pods that start here wait",
        undo="it goes on, and learns what changed meanwhile",
        argument="DURATION",
        check=seconds_of,
    ),
    Fault(
        CUT_API,
        "Agent and kubelet of the node can't reach the API, for DURATION (90s, 2m) or until --clear.",
        "`kubectl get node {node}` says NotReady after {silence} seconds; packets still pass",
        undo="they reach it again, and learn what changed meanwhile",
        argument="DURATION",
        check=seconds_of,
    ),
    Fault(
        UPLINK_DOWN,
        "The node's eth0 is set down.",
        "`{check}` names the pods that are not reached; `kubectl describe node {node}` says why",
        undo="eth0 is set up, and the machine configures it again",
        aliases=("link-down",),
    ),
    Fault(
        "isolate",
        "No packet passes between the node and other nodes; the API and the world outside are reached.",
        "`{check}` names the pods that are not reached; `kubectl get node {node}` says Ready",
        undo="packets pass again",
    ),
    Fault(
        "loss",
        "A SHARE of packets (10%) between the node and its switch is lost, in each direction.",
        "`{check}` tries what was lost once more; with 100% the node is not reached",
        undo="none is lost",
        argument="SHARE",
        check=loss_of,
        needed=True,
        flags={ONE_WAY: "With --loss: of those packets only that the node sends."},
    ),
    Fault(
        "block-port",
        "Packets from and to the node are dropped that are for this PORT (4789, 4789/udp), or of a protocol (gre).",
        "`{check}` names the pods that are not reached, if that is how packets go from node to node",
        undo="they pass again",
        argument="PORT",
        check=port_of,
        needed=True,
    ),
    Fault(
        MTU,
        "The node's eth0, and its port at the switch, take packets of at most BYTES.",
        "`{exec} POD -- ip link` shows the MTU of a pod",
        undo="they take packets as large as before",
        argument="BYTES",
        check=mtu_of,
        needed=True,
        not_during=(UPLINK_DOWN,),
        flags={UNSEEN: "With --mtu: only the port at the switch does; nothing on the node says so."},
        look_at_with={UNSEEN: "`{check}` names the nodes, the direction and the largest size that passes"},
    ),
    Fault(
        POWER_OFF,
        "The node and its pods are gone at once, and nobody is told.",
        "`kubectl get node {node}` says NotReady after {silence} seconds; its pods are not reached",
        undo="the machine boots, and its pods start again",
        not_during=(CUT_API, UPLINK_DOWN, STOP_AGENT, STOP_NAME_SERVER, MTU),
        flags={
            NEW_MAC: "With --power-off: when it boots, its eth0 has another MAC.",
            NEW_IP: "With --power-off: when it boots, the node has other addresses.",
        },
    ),
    Fault(
        "uplink-remade",
        "The node's eth0 is deleted, and made again as another interface.",
        "`{check}` passes, once the routes are back",
        not_during=(UPLINK_DOWN, MTU),
    ),
    Fault(
        STOP_NAME_SERVER,
        "The node has no name server; its pods are led to those of other nodes.",
        "`{exec} POD -- getent hosts kubernetes.default` has an answer, from another node",
        undo="its name server answers again",
    ),
    Fault(
        "kill-name-server",
        "The process of the name server, which serves all nodes of a lab, is killed; it starts again at once.",
        "names have answers, after some tenths of a second",
    ),
    Fault("flush-nftables", "Another program runs `nft flush ruleset` on the node.", TABLES_REPAIRED),
    Fault(
        "add-rule",
        "Another program appends a rule with a quota to a chain of podplane's, or tries to.",
        TABLES_REPAIRED,
    ),
    Fault(
        "delete-route",
        "Another program deletes the route to DESTINATION, or the first of podplane's.",
        REPAIRED,
        argument="DESTINATION",
    ),
    Fault(
        "delete-link",
        "Another program deletes the node's end of POD's veth pair, or of the first pod's.",
        REPAIRED,
        argument="POD",
    ),
    Fault(
        "delete-neighbour",
        "Another program deletes podplane's permanent neighbour with this IP, or the first one.",
        REPAIRED,
        argument="IP",
    ),
    Fault(
        "delete-address",
        "Another program deletes this IP from the pods' bridge, or its first address.",
        REPAIRED,
        argument="IP",
    ),
    Fault(
        "change-sysctl",
        "Another program changes the sysctl NAME, or net.ipv4.ip_forward.",
        REPAIRED,
        argument="NAME",
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
