"""Pods come and go, and everything goes wrong meanwhile: agents are killed at any moment, the API goes away, clocks jump, callers end.

No address is had twice, what was acknowledged stays, and nothing is left in the kernel of a pod that is gone.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kernel.lives import DENY, Machine, answer, until, veth
from tests.unit.cni import programs
from tests.unit.cni.programs import words_of

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]
PODS = tuple(f"p{number}" for number in range(4))
FURTHER = PODS[-1]
"""Has a further interface."""
ATTACHED, TRY_AGAIN = 101, 11


def veths(names: Iterable[str]) -> set[str]:
    """The node's ends of all links of these pods."""
    found = set(names)
    return {veth(name) for name in found} | {veth(name, "net1") for name in found & {FURTHER}}


class Life:
    """A machine, and what its engine knows: who is attached with which addresses, and of whom it is not known."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.attached: dict[str, Any] = {}
        """Results of ADD."""
        self.doubtful: set[str] = set()
        self.is_denied = self.is_heard = False
        """Is there a policy that denies everything; did an agent hear of it, or of its end, before the API went away?"""

    # What happens.

    def call(self, verb: str, name: str, kill_after: float | None, caller_ends_after: float | None) -> None:
        """A call, during which the agent may be killed; or the caller is."""
        if verb == "CHECK" and name not in self.attached:
            return
        fields = {"prevResult": self.attached[name]} if verb == "CHECK" else {}
        call = self.machine.call(verb, name, **fields)
        if caller_ends_after is not None:
            time.sleep(caller_ends_after)
            call.kill()
            if call.wait() == -signal.SIGKILL:  # else it has ended before
                self.doubtful.add(name)
                self.attached.pop(name, None)
                return
        if kill_after is not None:
            time.sleep(kill_after)
            self.restart(signal.SIGKILL)
        self._answered(verb, name, *answer(call))

    def _answered(self, verb: str, name: str, status: int, said: Any) -> None:
        if verb == "DEL":
            assert status == 0, said
            self.attached.pop(name, None)
            self.doubtful.discard(name)
            self.machine.leave(name)
        elif verb == "CHECK":
            assert status == 0, said
        elif status == 0:
            was = self.attached.setdefault(name, said)
            assert was["ips"] == said["ips"], "it is asked for again when the agent ended before it answered"
            self.doubtful.discard(name)
            if self.is_denied and (self.is_heard or not self.machine.is_away):
                assert self.denies(), "what is attached is under its policies"
        elif said["code"] == TRY_AGAIN:
            assert name == FURTHER and self.machine.is_away, said
            self.doubtful |= {name} - self.attached.keys()  # it may be asked for again, and be attached
        else:
            assert said["code"] == ATTACHED and (name in self.attached or name in self.doubtful), said

    def gc(self, gone: str) -> None:
        """Detach this pod, and what is doubtful, as far as it has been asked for by now."""
        self.attached.pop(gone, None)
        kept = [{"containerID": name, "ifname": "eth0"} for name in self.attached]
        status, said = answer(self.machine.call("GC", **{"cni.dev/valid-attachments": kept}))
        assert status == 0, said
        if gone not in self.doubtful:
            self.machine.leave(gone)

    def restart(self, how: signal.Signals) -> None:
        self.machine.end(how)
        self.machine.start()

    def policy(self) -> None:
        """One that denies everything comes or goes. Of one that comes while the API is away an agent does not know."""
        if self.machine.is_away:
            return
        self.is_denied = not self.is_denied
        self.machine.put("networkpolicies", "default/deny", DENY if self.is_denied else None)

    def away(self) -> None:
        """The API goes away: of what came just before, with no pod to see it by, an agent may have heard nothing."""
        if self.machine.is_away:
            return
        if self.attached:
            until(lambda: self.denies() == self.is_denied, f"the policy that is in force: {self.is_denied}")
        self.is_heard = bool(self.attached)
        self.machine.change(is_away=True)

    def denies(self) -> bool:
        return (
            "np/default/deny"
            in subprocess.run(["nft", "list", "table", "inet", "podplane-policy"], capture_output=True, text=True).stdout
        )

    # What holds.

    def hold(self) -> None:
        """Of those that are attached each has addresses of its own, and of others there is nothing, or soon."""
        ips = [one["address"] for result in self.attached.values() for one in result["ips"]]
        assert len(ips) == len(set(ips)), self.attached
        wanted, allowed = veths(self.attached), veths((*self.attached, *self.doubtful))
        until(lambda: wanted <= self.machine.veths() <= allowed, f"links of {self.attached.keys()}, perhaps {self.doubtful}")

    def end(self, empty: Callable[[], bool]) -> None:
        """All is well again: what is attached is whole, and when the last one has gone the kernel is as it was."""
        self.machine.change(is_away=False)
        for name in tuple(self.attached):
            self.call("CHECK", name, None, None)
        if self.attached:
            until(lambda: self.denies() == self.is_denied, f"the policy that is in force: {self.is_denied}")
        if self.is_denied:
            self.policy()
        for name in PODS:
            self.call("DEL", name, None, None)
        until(empty, "a kernel without pods")
        said = self.machine.said()
        assert "Traceback" not in said and "refused=" not in said, said


def steps_of(random: Random) -> Iterator[tuple[str, str, float | None]]:
    """What happens, to whom, and when, or by how much; of most kinds something early, as all of it matters most to what is attached."""
    for name in random.sample(PODS, 2):
        yield "ADD", name, random.choice((None, random.uniform(0, 0.05)))
    for _ in range(STEPS):
        (kind,) = random.choices(*zip(*KINDS.items(), strict=True))
        moment = random.choice((-86400.0, -5.0, 5.0, 86400.0)) if kind == "clock" else random.uniform(0, 0.05)
        yield kind, random.choice(PODS), None if kind in CALLS and random.random() < 0.5 else moment


CALLS = ("ADD", "DEL", "CHECK")
KINDS = {
    "ADD": 5,
    "DEL": 3,
    "CHECK": 2,
    "ADD and go": 1,
    "DEL and go": 1,
    "GC": 2,
    "kill": 1,
    "restart": 1,
    "policy": 2,
    "clock": 1,
}
KINDS |= {"away": 2, "back": 1}
"""How often each happens. The agent is also killed during every second call."""
STEPS = 8
ENOUGH = 2
"""Examples of each run; others each time. The profile `long` has more."""


def test_nothing_is_had_twice_and_nothing_leaks_whatever_goes_wrong(tmp_path: Path) -> None:
    machine = Machine(tmp_path, words_of("c", tmp_path), len(PODS))
    machine.start()
    until(lambda: answer(machine.call("STATUS"))[0] == 0, "an agent")
    until(lambda: (tmp_path / "run" / "cluster").exists(), "what is known of the cluster")
    before, failures = set(machine.kernel()), list[Exception]()

    @settings(
        max_examples=max(ENOUGH, settings().max_examples // 20),
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 1 << 32))
    def live(seed: int) -> None:
        steps = list(steps_of(Random(seed)))
        if failures:
            return  # the machine is not what it was: what fails now says nothing
        try:
            play(steps)
        except Exception as error:
            error.add_note(f"{steps}\n{machine.said()[-3000:]}")
            failures.append(error)

    def play(steps: list[tuple[str, str, float | None]]) -> None:
        life = Life(machine)
        for what, name, moment in steps:
            match what:
                case "ADD" | "DEL" | "CHECK":
                    life.call(what, name, moment, None)
                case "ADD and go" | "DEL and go":
                    life.call(what[:3], name, None, moment)
                case "GC":
                    life.gc(name)
                case "kill" | "restart":
                    life.restart(signal.SIGKILL if what == "kill" else signal.SIGTERM)
                case "away":
                    life.away()
                case "back":
                    machine.change(is_away=False)
                case "policy":
                    life.policy()
                case "clock":
                    machine.change(wall=moment)
            life.hold()
        life.end(lambda: set(machine.kernel()) == before)

    try:
        live()
        for error in failures:
            raise error
    finally:
        machine.close()
        programs.clean()
