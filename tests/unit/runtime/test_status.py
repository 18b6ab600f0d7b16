"""A pod's status: phase, conditions and what kubectl shows, for every combination of what its containers do."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import msgspec
import pytest

from podplane.apiserver.kinds.pod_summary import Summary, summary
from podplane.kubeapi.client import Client
from podplane.model.objects import Metadata
from podplane.model.phases import ENDED
from podplane.model.pod import Container, Pod, PodCondition, PodSpec, PodStatus
from podplane.runtime.status import (
    EPHEMERAL,
    INIT,
    MAIN,
    RUNNING,
    SIDECAR,
    TERMINATED,
    WAITING,
    ContainerState,
    Known,
    as_patch,
    phase,
    pod_status,
)
from tests.unit.apiserver.test_server import PODS, Api

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
LAST = {"exitCode": 1, "reason": "Error", "finishedAt": THEN}


def waiting(reason: str = "PodInitializing", *, again: bool = False) -> dict[str, Any]:
    """It waits for its first start, or after it ended once."""
    more = {"last": LAST, "restarts": 1, "started_at": THEN} if again else {}
    return {"state": WAITING, "reason": reason, **more}


def running(*, started: bool = True, ready: bool = True, restarts: int = 0) -> dict[str, Any]:
    found = {"state": RUNNING, "reason": "", "started_at": THEN, "started": started, "ready": ready and started}
    return {**found, "restarts": restarts, "last": LAST} if restarts else found


def ended(code: int = 0) -> dict[str, Any]:
    reason = "Error" if code else "Completed"
    return {"state": TERMINATED, "reason": reason, "exit_code": code, "started_at": THEN, "finished_at": THEN}


CREATED = waiting()
CRASHING = waiting("CrashLoopBackOff", again=True)
STATES = {
    "created": CREATED,
    "crashing": CRASHING,
    "starting": running(started=False),
    "running": running(),
    "succeeded": ended(),
    "failed": ended(1),
}
Named = tuple[str, dict[str, Any]]


def known_of(*containers: tuple[str, dict[str, Any]], **more: Any) -> Known:
    """Containers by their roles; their names are their roles and numbers."""
    states = [ContainerState(f"{role}{i}", "podplane/echo", role, **state) for i, (role, state) in enumerate(containers)]
    return Known(states, has_network=True, started_at=THEN, ips=("10.1.0.2",), **more)


def pod_of(known: Known, policy: str = "Always", *conditions: PodCondition) -> Pod:
    def specs(*roles: str) -> tuple[Container, ...]:
        return tuple(Container(c.name, image=c.image) for c in known.of(*roles))

    spec = PodSpec(restart_policy=policy, init_containers=specs(INIT, SIDECAR), containers=specs(MAIN))
    return Pod(metadata=Metadata(name="web", namespace="default"), spec=spec, status=PodStatus(conditions=conditions))


def shown(known: Known, status: dict[str, Any], **metadata: Any) -> Summary:
    """What a table says of the pod."""
    inits = [{"name": c.name, **({"restartPolicy": "Always"} if c.role == SIDECAR else {})} for c in known.of(INIT, SIDECAR)]
    spec = {"initContainers": inits, "containers": [{"name": c.name} for c in known.of(MAIN)]}
    return summary({"metadata": {"name": "web", **metadata}, "spec": spec, "status": status})


def condition(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found.get("reason", ""), found.get("message", "")


# What users see of the usual lives.

INIT_DONE = (INIT, ended())
UNREADY = "containers with unready status: [{}]"
LIVES: dict[str, tuple[str, tuple[Named, ...], str, str, str, tuple[str, str], tuple[str, str]]] = {
    # policy, containers, phase, READY, STATUS, (Initialized, reason), (Ready, reason)
    "not begun": ("Always", ((MAIN, waiting("ContainerCreating")),), "Pending", "0/1", "ContainerCreating",
                  ("True", ""), ("False", "ContainersNotReady")),
    "an init container runs": ("Always", ((INIT, running()), (MAIN, CREATED)), "Pending", "0/1", "Init:0/1",
                               ("False", "ContainersNotInitialized"), ("False", "ContainersNotReady")),
    "the second of three is next": ("Always", (INIT_DONE, (INIT, CREATED), (INIT, CREATED), (MAIN, CREATED)), "Pending",
                                    "0/1", "Init:1/3", ("False", "ContainersNotInitialized"), ("False", "ContainersNotReady")),
    "an init container crashes": ("Always", ((INIT, CRASHING), (MAIN, CREATED)), "Pending", "0/1", "Init:CrashLoopBackOff",
                                  ("False", "ContainersNotInitialized"), ("False", "ContainersNotReady")),
    "an init container failed for good": ("Never", ((INIT, ended(1)), (MAIN, CREATED)), "Failed", "0/1", "Init:Error",
                                          ("False", "ContainersNotInitialized"), ("False", "PodFailed")),
    "initialized": ("Always", (INIT_DONE, (MAIN, CREATED)), "Pending", "0/1", "PodInitializing",
                    ("True", ""), ("False", "ContainersNotReady")),
    "serves": ("Always", (INIT_DONE, (MAIN, running())), "Running", "1/1", "Running", ("True", ""), ("True", "")),
    "its probe says no": ("Always", ((MAIN, running(ready=False)),), "Running", "0/1", "Running",
                          ("True", ""), ("False", "ContainersNotReady")),
    "crashes": ("Always", ((MAIN, CRASHING),), "Running", "0/1", "CrashLoopBackOff",
                ("True", ""), ("False", "ContainersNotReady")),
    "one of two has ended": ("Never", ((MAIN, ended()), (MAIN, running())), "Running", "1/2", "NotReady",
                             ("True", ""), ("False", "ContainersNotReady")),
    "one of two has failed": ("Never", ((MAIN, ended(1)), (MAIN, running())), "Running", "1/2", "Error",
                              ("True", ""), ("False", "ContainersNotReady")),
    "succeeded": ("Never", (INIT_DONE, (MAIN, ended())), "Succeeded", "0/1", "Completed",
                  ("True", "PodCompleted"), ("False", "PodCompleted")),
    "failed": ("Never", (INIT_DONE, (MAIN, ended(1))), "Failed", "0/1", "Error", ("True", ""), ("False", "PodFailed")),
    "ends and comes again": ("Always", ((MAIN, ended()),), "Running", "0/1", "Completed",
                             ("True", ""), ("False", "ContainersNotReady")),
    "the sidecar starts": ("Always", ((SIDECAR, running(started=False)), (MAIN, CREATED)), "Pending", "0/2", "Init:0/1",
                           ("False", "ContainersNotInitialized"), ("False", "ContainersNotReady")),
    "with its sidecar": ("Always", ((SIDECAR, running()), (MAIN, running())), "Running", "2/2", "Running",
                         ("True", ""), ("True", "")),
    "the sidecar crashes": ("Always", ((SIDECAR, CRASHING), (MAIN, running())), "Running", "1/2", "Init:CrashLoopBackOff",
                            ("True", ""), ("False", "ContainersNotReady")),
    "the sidecar starts again": ("Always", ((SIDECAR, running(started=False)), (MAIN, running())), "Running", "1/2",
                                 "Init:0/1", ("True", ""), ("False", "ContainersNotReady")),
    "the sidecar outlives the main": ("Never", ((SIDECAR, running()), (MAIN, ended())), "Running", "1/2", "Completed",
                                      ("True", ""), ("False", "ContainersNotReady")),
    "the sidecar outlives a failed main": ("Never", ((SIDECAR, running()), (MAIN, ended(1))), "Running", "1/2", "Error",
                                           ("True", ""), ("False", "ContainersNotReady")),
    "the sidecar was killed at the end": ("Never", ((SIDECAR, ended(137)), (MAIN, ended())), "Succeeded", "0/2", "Completed",
                                          ("True", "PodCompleted"), ("False", "PodCompleted")),
    "the sidecar was killed after a failure": ("OnFailure", ((SIDECAR, ended(137)), (MAIN, ended())), "Succeeded", "0/2",
                                               "Completed", ("True", "PodCompleted"), ("False", "PodCompleted")),
    "the sidecar ended well, the main not": ("Never", ((SIDECAR, ended()), (MAIN, ended(3))), "Failed", "0/2", "Error",
                                             ("True", ""), ("False", "PodFailed")),
    "a failed init container and a sidecar": ("Never", ((SIDECAR, running()), (INIT, ended(1)), (MAIN, CREATED)), "Pending",
                                              "1/2", "Init:Error", ("False", "ContainersNotInitialized"), ("False", "PodFailed")),
}  # fmt: skip


@pytest.mark.parametrize("life", LIVES)
def test_what_users_see(life: str) -> None:
    policy, containers, is_now, ready, word, initialized, serves = LIVES[life]
    known = known_of(*containers)
    status = pod_status(pod_of(known, policy), known, NOW)
    cells = shown(known, status)
    assert (status["phase"], f"{cells.ready}/{cells.containers}", cells.state) == (is_now, ready, word)
    assert condition(status, "Initialized")[:2] == initialized
    assert condition(status, "Ready")[:2] == condition(status, "ContainersReady")[:2] == serves


@pytest.mark.parametrize(
    ("role", "state", "ready", "started"),
    [
        (INIT, running(), False, True),
        (INIT, ended(), True, False),
        (INIT, ended(1), False, False),
        (INIT, CRASHING, False, False),
        (SIDECAR, running(), True, True),
        (SIDECAR, running(ready=False), False, True),
        (SIDECAR, ended(), False, False),
        (MAIN, running(started=False), False, False),
        (MAIN, ended(), False, False),
        (EPHEMERAL, running(), False, None),
        (EPHEMERAL, ended(), False, None),
    ],
)
def test_what_a_container_is_said_to_be(role: str, state: dict[str, Any], ready: bool, started: bool | None) -> None:
    """An init container is ready once it is done; of an ephemeral one nobody says whether it has started."""
    status = ContainerState("a", "podplane/echo", role, **state).status()
    assert (status["ready"], status.get("started")) == (ready, started)


def test_restarts_are_those_of_what_is_started_now() -> None:
    """Of init containers until the pod is initialized, then of sidecars and main containers (printPod)."""
    again = {**ended(), "restarts": 5, "last": {**LAST, "finishedAt": "2026-01-01T00:00:09Z"}}
    known = known_of((INIT, again), (SIDECAR, running(restarts=2)), (MAIN, CRASHING))
    cells = shown(known, pod_status(pod_of(known), known, NOW))
    assert (cells.restarts, cells.restarted_at) == (3, THEN)
    known = known_of((INIT, again), (INIT, CRASHING), (MAIN, CREATED))
    cells = shown(known, pod_status(pod_of(known), known, NOW))
    assert (cells.restarts, cells.restarted_at) == (6, "2026-01-01T00:00:09Z")


def test_a_pod_that_is_deleted_is_terminating_until_it_has_ended() -> None:
    known = known_of((MAIN, running()))
    status = pod_status(pod_of(known), known, NOW)
    assert shown(known, status, deletionTimestamp=NOW).state == "Terminating"
    known = known_of((MAIN, ended(143)), is_gone=True)
    status = pod_status(pod_of(known), known, NOW)
    assert (status["phase"], shown(known, status, deletionTimestamp=NOW).state) == ("Failed", "Error")
    assert shown(known, {"reason": "NodeLost"}, deletionTimestamp=NOW).state == "Unknown"


# All combinations: the rules of getPhase, counted as it counts.


def expected_phase(policy: str, inits: list[str], sidecars: list[str], mains: list[str]) -> str:
    stopped = [state for state in mains if state in ("succeeded", "failed", "crashing")]
    if policy == "Never" and "failed" in inits:
        return "Failed"
    initializing = {"created", "starting", "running"} & set(inits) or {"created", "starting"} & set(sidecars)
    if (initializing and set(mains) == {"created"}) or "created" in sidecars + mains:
        return "Pending"
    if {"running", "starting"} & set(sidecars + mains):
        return "Running"
    assert len(stopped) == len(mains)
    well = set(mains) == {"succeeded"}
    return {"Always": "Running", "OnFailure": "Succeeded" if well else "Running", "Never": "Succeeded" if well else "Failed"}[
        policy
    ]


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize("counts", [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2), (1, 1, 1), (0, 1, 2)])
def test_every_combination_has_the_phase_that_kubelet_gives_it(policy: str, counts: tuple[int, int, int]) -> None:
    roles = [role for role, count in zip((INIT, SIDECAR, MAIN), counts, strict=True) for _ in range(count)]
    for states in itertools.product(STATES, repeat=len(roles)):
        known = known_of(*((role, STATES[state]) for role, state in zip(roles, states, strict=True)))
        by_role = {r: [s for role, s in zip(roles, states, strict=True) if role == r] for r in (INIT, SIDECAR, MAIN)}
        wanted = expected_phase(policy, by_role[INIT], by_role[SIDECAR], by_role[MAIN])
        assert phase(known, policy) == wanted, states
        check_laws(known, policy, wanted)


def check_laws(known: Known, policy: str, wanted: str) -> None:
    """What holds of each status: an end is told when nothing runs; a pod that has ended, or of which a part is not ready, isn't."""
    status = pod_status(pod_of(known, policy), known, NOW)
    runs = any(c.state == RUNNING for c in known.containers)
    assert (status["phase"] == wanted) is not (runs and wanted in ENDED)
    parts = known.of(SIDECAR, MAIN)
    assert (condition(status, "Ready")[0] == "True") is (wanted not in ENDED and all(c.ready for c in parts))
    unready = [c.name for c in parts if not c.ready]
    if wanted not in ENDED and unready:
        assert condition(status, "Ready")[1:] == ("ContainersNotReady", UNREADY.format(" ".join(unready)))
    gone = pod_status(pod_of(known, policy), dataclasses.replace(known, is_gone=True), NOW)
    assert gone["phase"] == ("Succeeded" if all(c.succeeded for c in known.of(MAIN)) and wanted != "Failed" else "Failed")
    cells = shown(known, status)
    assert cells.ready <= cells.containers == len(parts)


# The end of a pod.


def test_a_pod_that_ran_too_long_is_not_ready_at_once_and_failed_when_all_has_ended() -> None:
    """As mergePodStatus holds the phase back (kubelet, status_manager.go)."""
    known = known_of((MAIN, running()), failure=("DeadlineExceeded", "too long"))
    status = pod_status(pod_of(known), known, NOW)
    assert (status["phase"], status["reason"], condition(status, "Ready")) == ("Running", None, ("False", "PodFailed", ""))
    known = known_of((MAIN, ended(143)), failure=("DeadlineExceeded", "too long"))
    status = pod_status(pod_of(known), known, NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")
    assert shown(known, status).state == "Error"


@pytest.mark.parametrize(
    ("containers", "unknown"),
    [
        (((MAIN, CREATED),), ["main0"]),
        (((INIT, CREATED), (MAIN, CREATED)), ["init0"]),
        (((INIT, ended()), (INIT, CREATED), (MAIN, CREATED)), []),
        (((INIT, ended()), (MAIN, CREATED)), ["main1"]),
        (((MAIN, ended()), (MAIN, CRASHING)), ["main1"]),
        (((SIDECAR, CRASHING), (MAIN, ended())), ["sidecar0"]),
        (((MAIN, ended()),), []),
    ],
)
def test_what_nobody_saw_end_has_failed_in_a_pod_that_is_gone(containers: tuple[Named, ...], unknown: list[str]) -> None:
    """Status manager, TerminatePod: what never had its turn stays as it is."""
    known = known_of(*containers, is_gone=True)
    status = pod_status(pod_of(known), known, NOW)
    states = {c["name"]: c["state"] for c in [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]}
    lost = {
        name: s["terminated"] for name, s in states.items() if s.get("terminated", {}).get("reason") == "ContainerStatusUnknown"
    }
    assert list(lost) == unknown
    assert all(end["exitCode"] == 137 and "startedAt" not in end for end in lost.values())


# Conditions of others, gates, times.


def test_gates_say_which_condition_is_missing() -> None:
    known = known_of((MAIN, running()), gates=("a/b", "c/d", "e/f"))
    pod = pod_of(known, "Always", PodCondition("c/d", "False"), PodCondition("e/f", "True"))
    status = pod_status(pod, known, NOW)
    assert condition(status, "Ready") == (
        "False",
        "ReadinessGatesNotReady",
        'corresponding condition of pod readiness gate "a/b" does not exist., '
        'the status of pod readiness gate "c/d" is not "True", but False',
    )
    assert condition(status, "ContainersReady")[0] == "True"


def test_conditions_are_in_the_order_of_kubelet_and_keep_their_times() -> None:
    known = known_of((MAIN, running()))
    old = PodCondition("ContainersReady", "True", last_transition_time=THEN)
    status = pod_status(pod_of(known, "Always", old, PodCondition("other/one", "True")), known, NOW)
    assert [c["type"] for c in status["conditions"]] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    times = {c["type"]: c.get("lastTransitionTime") for c in status["conditions"]}
    assert (times["ContainersReady"], times["Ready"]) == (THEN, NOW)


async def test_a_report_leaves_what_others_say_as_it_is() -> None:
    """Also what was said after the kubelet has looked, and in fields that it does not know; addresses are those of now."""
    api = Api()
    await api.pod("web")
    theirs = {"type": "example.org/lb", "status": "True", "lastProbeTime": THEN, "reason": "Registered"}
    old = {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "x"}
    before = {
        "conditions": [theirs, old],
        "podIPs": [{"ip": "10.9.9.9"}],
        "podIP": "10.9.9.9",
        "hostIPs": [{"ip": "192.0.2.1"}],
    }
    await api("PATCH", f"{PODS}/web/status", {"status": {**before, "hostIP": "192.0.2.1"}})
    known = known_of((MAIN, running()), host_ips=("192.0.2.7", "fd00::7"))
    status = as_patch(pod_status(pod_of(known), known, NOW))
    uid = (await api("GET", f"{PODS}/web"))["metadata"]["uid"]
    await Client(api.server.call, "secret").patch_own_status("pods", "default", "web", status, uid)
    found = (await api("GET", f"{PODS}/web"))["status"]
    by_type = {c["type"]: c for c in found["conditions"]}
    assert by_type["example.org/lb"] == theirs
    assert by_type["Ready"] == {"type": "Ready", "status": "True", "lastTransitionTime": NOW}
    assert (found["podIPs"], found["hostIPs"]) == ([{"ip": "10.1.0.2"}], [{"ip": "192.0.2.7"}, {"ip": "fd00::7"}])
    assert found["phase"] == "Running"


def test_it_says_which_generation_of_the_pod_it_is_of() -> None:
    known = known_of((MAIN, running()))
    pod = pod_of(known)
    assert "observedGeneration" not in pod_status(pod, known, NOW)
    told = pod_status(of_generation(pod, 3), known, NOW)
    assert [told["observedGeneration"], *(c["observedGeneration"] for c in told["conditions"])] == [3] * 6


def of_generation(pod: Pod, generation: int) -> Pod:
    """The pod as its spec was changed so often."""
    return msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, generation=generation))
