"""The faults that a lab can make, a row each: what the command line offers, and what it says about them.

`actions` has for each row the function that makes the fault, and the one that undoes it. They are apart because they import
the kernel door, and a command must feel instant.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

DURATION = re.compile(r"(?P<number>[0-9]+)(?P<unit>s|m|h)")
MAX_DIGITS = 6
UNITS = {"s": 1, "m": 60, "h": 3600}
CLEAR = "clear"
"""In a request, in place of a fault: undo all active ones."""


class FaultError(Exception):
    """A fault can't be made: one line for the user."""


def seconds_of(text: str) -> float:
    """Seconds of a duration such as 90s, 2m or 1h. FaultError when it is none, no time at all, or too long."""
    found = DURATION.fullmatch(text)
    if found and len(found["number"]) > MAX_DIGITS:
        raise FaultError(f"{text[:40]!r} is too long: a duration has {MAX_DIGITS} digits at most, as 999999h")
    if found is None or not int(found["number"]):
        raise FaultError(f"{text!r} is no duration: write 90s, 2m or 1h, after the name of the node")
    return float(int(found["number"]) * UNITS[found["unit"]])


def any_text(text: str) -> object:
    """An argument that only the node can judge."""
    return text


class Fault(msgspec.Struct, frozen=True):
    """One fault. `undo` says what `--clear` does about it; without it the fault is over at once, and is never active.

    `argument` is the placeholder of the option's optional value, and `check` raises FaultError for one that makes no sense.
    `not_during` names the active faults that must be cleared before.
    """

    name: str
    help: str
    look_at: str
    undo: str = ""
    argument: str = ""
    check: Callable[[str], object] = any_text
    not_during: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name}"

    @property
    def usage(self) -> str:
        """The option with its placeholder."""
        return f"{self.option} [{self.argument}]" if self.argument else self.option


CUT_API, UPLINK_DOWN, STOP_AGENT = "cut-api", "uplink-down", "stop-agent"
REPAIRED = "`kubectl describe node {node}` has a Repaired event"
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
        "`kubectl get node {node}` says NotReady after 40 seconds; packets still pass",
        undo="they reach it again, and learn what changed meanwhile",
        argument="DURATION",
        check=seconds_of,
    ),
    Fault(
        UPLINK_DOWN,
        "The node's eth0 is set down.",
        "`{check}` names the pods that are not reached; `kubectl describe node {node}` says why",
        undo="eth0 is set up, and the machine configures it again",
    ),
    Fault(
        "uplink-remade",
        "The node's eth0 is deleted, and made again as another interface.",
        "`{check}` passes, once the routes are back",
        not_during=(UPLINK_DOWN,),
    ),
    Fault(
        "stop-name-server",
        "The node has no name server; its pods are led to those of other nodes.",
        "`{exec} POD -- getent hosts kubernetes.default` has an answer, from another node",
        undo="its name server answers again",
    ),
    Fault(
        "kill-name-server",
        "The process of the name server, which serves all nodes of a lab, is killed; it starts again at once.",
        "names have answers, after some tenths of a second",
    ),
    Fault("flush-nftables", "Another program runs `nft flush ruleset` on the node.", REPAIRED),
    Fault(
        "add-rule",
        "Another program appends a rule with a quota to a chain of podplane's.",
        REPAIRED,
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
