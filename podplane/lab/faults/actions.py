"""How each fault of `table.FAULTS` is made, and undone: a row each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from podplane.agent.node import Started
from podplane.lab.faults import cable, foreign
from podplane.lab.faults.arguments import Boot, FaultError, Narrow, boot_of, loss_of, mtu_of, port_of
from podplane.lab.faults.cable import Cable
from podplane.lab.faults.foreign import Place
from podplane.lab.underlay import MTU, UPLINK
from podplane.model.words import counted
from podplane.state.nft import Chain


class Target(Place, Protocol):
    """The node that something happens to."""

    @property
    def cable(self) -> Cable:
        """That to its switch."""

    async def restart_agent(self) -> Started:
        """End the agent and begin with a new one."""

    def kill_agent(self) -> int:
        """SIGKILL to the agent's process; the process id, 0 when there is none. FaultError when it is no process."""

    def pause_agent(self) -> int:
        """SIGSTOP; likewise."""

    def resume_agent(self) -> None:
        """SIGCONT."""

    async def cut_api(self) -> None:
        """Nothing of the node reaches the API, and nothing of the API reaches the node."""

    async def reconnect_api(self) -> None:
        """They reach each other again, and the node is told what changed."""

    async def stop_name_server(self) -> None:
        """The node's name server answers none."""

    def resume_name_server(self) -> None:
        """It answers again."""

    def kill_name_server(self) -> int:
        """SIGKILL to its process; the process id, 0 when there is none."""

    async def power_off(self, boot: Boot) -> None:
        """Now; `boot` is how it will boot."""

    async def power_on(self) -> str:
        """Boot, and start the pods again; the addresses of the node."""

    def configure_uplink(self) -> None:
        """Apply the machine's own network configuration once more; blocks."""

    def remake_uplink(self) -> None:
        """Delete the node's uplink and make it again; blocks."""


Make = Callable[[Target, str], Awaitable[str]]
"""(node, argument) → what was done, in a sentence. FaultError, KernelError or OSError when it can't be."""
Undo = Callable[[Target], Awaitable[str]]


class Action(msgspec.Struct, frozen=True):
    """One fault: `undo` where it has one."""

    make: Make
    undo: Undo | None = None


def by_foreign_hand(function: Callable[[Place, str], str]) -> Action:
    """In a thread: it blocks."""

    async def make(target: Target, argument: str) -> str:
        return await asyncio.to_thread(function, target, argument)

    return Action(make)


async def restart_agent(target: Target, argument: str) -> str:
    """The agent ends and starts again."""
    started = await target.restart_agent()
    changes = started.changes + len(started.refused)
    wrote = f"wrote {counted(changes, 'change')} to the kernel" if changes else "wrote nothing to the kernel"
    return f"The agent of {target.name} started again in {started.seconds * 1000:.0f} ms and {wrote}."


async def kill_agent(target: Target, argument: str) -> str:
    """The process ends."""
    pid = _running(target, target.kill_agent())
    return f"The agent of {target.name} (process {pid} of the lab) was killed."


async def stop_agent(target: Target, argument: str) -> str:
    """The process does nothing; whoever made the request undoes that after the time."""
    pid = _running(target, target.pause_agent())
    end = f"for {argument}" if argument else "until `--clear`"
    return f"The agent of {target.name} (process {pid} of the lab) is stopped, {end}."


def _running(target: Target, pid: int) -> int:
    if not pid:
        raise FaultError(f"the agent of {target.name} does not run: it is about to start")
    return pid


async def resume_agent(target: Target) -> str:
    """It goes on."""
    target.resume_agent()
    return f"The agent of {target.name} goes on."


async def cut_api(target: Target, argument: str) -> str:
    """The API is out of reach; whoever made the request undoes that after the time."""
    await target.cut_api()
    return f"{target.name} can't reach the API, {f'for {argument}' if argument else 'until `--clear`'}."


async def reconnect_api(target: Target) -> str:
    """The API is in reach."""
    await target.reconnect_api()
    return f"{target.name} reaches the API again."


async def uplink_down(target: Target, argument: str) -> str:
    """The uplink goes down."""
    await asyncio.to_thread(lambda: foreign.set_link(target, UPLINK, up=False))
    return f"On {target.name}, {UPLINK} was set down."


async def uplink_up(target: Target) -> str:
    """The uplink comes up."""
    await asyncio.to_thread(lambda: foreign.set_link(target, UPLINK, up=True))
    return f"On {target.name}, {UPLINK} was set up."


async def remake_uplink(target: Target, argument: str) -> str:
    """The uplink is another interface of the same name."""
    await asyncio.to_thread(target.remake_uplink)
    return f"On {target.name}, {UPLINK} was deleted and made again."


async def power_off(target: Target, argument: str) -> str:
    """The machine is gone."""
    await target.power_off(boot_of(argument))
    return f"{target.name} is without power, and its pods are gone."


async def power_on(target: Target) -> str:
    """The machine boots."""
    return f"{target.name} has booted, at {await target.power_on()}."


def on_cable(fault: str, plan: Callable[[Cable, str], tuple[Iterable[Chain], str]]) -> Action:
    """A fault of the cable, by the rules that `plan` makes of the argument, and a sentence that says what they do."""

    async def make(target: Target, argument: str) -> str:
        chains, done = plan(target.cable, argument)
        await asyncio.to_thread(cable.set_up, target.cable, fault, chains)
        return done

    async def undo(target: Target) -> str:
        await asyncio.to_thread(cable.lift, target.cable, fault)
        return f"On the cable of {target.name}, {fault} is over."

    return Action(make, undo)


def isolate(of: Cable, argument: str) -> tuple[Iterable[Chain], str]:
    """Nothing passes between nodes."""
    return cable.isolated(of), f"No packet passes between {of.node} and other nodes; it reaches the API and the world outside."


def lose(of: Cable, argument: str) -> tuple[Iterable[Chain], str]:
    """Some packets are lost."""
    wanted = loss_of(argument)
    which = f"that {of.node} sends" if wanted.one_way else f"from and to {of.node}"
    return cable.loss(of, wanted), f"{argument.split()[0]} of the packets {which} are lost."


def block_port(of: Cable, argument: str) -> tuple[Iterable[Chain], str]:
    """Some packets are dropped."""
    wanted = port_of(argument)
    what = f"to port {wanted.number} ({', '.join(wanted.protocols)})" if wanted.number else f"of {argument}"
    return cable.blocked_port(of, wanted), f"Packets {what} from and to {of.node} are dropped."


async def narrow(target: Target, argument: str) -> str:
    """The MTU is another one."""
    wanted = mtu_of(argument)
    await asyncio.to_thread(_set_mtu, target, wanted)
    where = "the switch's port" if wanted.unseen else f"{UPLINK} and of the switch's port"
    return f"On {target.name}, the MTU of {where} was set to {wanted.mtu}."


async def widen(target: Target) -> str:
    """The MTU is the usual one. An interface with less than 1280 has lost its IPv6 addresses (RFC 8200, 5; addrconf_notify)."""
    await asyncio.to_thread(_set_mtu, target, Narrow(MTU))
    await asyncio.to_thread(target.configure_uplink)
    return f"{UPLINK} of {target.name} and its port at the switch take packets of {MTU} bytes."


def _set_mtu(target: Target, wanted: Narrow) -> None:
    cable.set_mtu(target.cable, wanted.mtu)
    if not wanted.unseen:
        foreign.set_mtu(target.namespace, UPLINK, wanted.mtu)


async def stop_name_server(target: Target, argument: str) -> str:
    """The node has none."""
    await target.stop_name_server()
    return f"The name server of {target.name} answers none: those of other nodes do, if there are any, until `--clear`."


async def resume_name_server(target: Target) -> str:
    """The node has one again."""
    target.resume_name_server()
    return f"The name server of {target.name} answers again."


async def kill_name_server(target: Target, argument: str) -> str:
    """The process ends."""
    pid = target.kill_name_server()
    if not pid:
        raise FaultError("the name server does not run: it is about to start")
    return f"The name server of all nodes (process {pid} of the lab) was killed."


ACTIONS: Mapping[str, Action] = {
    "restart-agent": Action(restart_agent),
    "kill-agent": Action(kill_agent),
    "stop-agent": Action(stop_agent, resume_agent),
    "cut-api": Action(cut_api, reconnect_api),
    "uplink-down": Action(uplink_down, uplink_up),
    "uplink-remade": Action(remake_uplink),
    "isolate": on_cable("isolate", isolate),
    "loss": on_cable("loss", lose),
    "block-port": on_cable("block-port", block_port),
    "mtu": Action(narrow, widen),
    "power-off": Action(power_off, power_on),
    "stop-name-server": Action(stop_name_server, resume_name_server),
    "kill-name-server": Action(kill_name_server),
    "flush-nftables": by_foreign_hand(foreign.flush_nftables),
    "add-rule": by_foreign_hand(foreign.add_rule),
    "delete-route": by_foreign_hand(foreign.delete_route),
    "delete-link": by_foreign_hand(foreign.delete_link),
    "delete-neighbour": by_foreign_hand(foreign.delete_neighbour),
    "delete-address": by_foreign_hand(foreign.delete_address),
    "change-sysctl": by_foreign_hand(foreign.change_sysctl),
}
"""By the name of the fault."""
