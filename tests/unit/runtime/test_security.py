"""What of a `securityContext` is applied, and what is told instead."""

from __future__ import annotations

import msgspec
import pytest

from podplane.kernel.rights import NAMES, Rights
from podplane.model.pod import Container, Pod
from podplane.runtime import security
from podplane.runtime.environment import ConfigError
from podplane.runtime.security import check_host_pid, not_applied, not_shared
from podplane.runtime.users import User

EVERY = tuple(range(len(NAMES)))
USUAL = tuple(
    map(
        NAMES.index,
        (
            *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
            *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
        ),
    )
)


def having(*numbers: int, is_final: bool = False) -> Rights:
    return Rights(tuple(n for n in EVERY if n not in numbers), is_final, is_filtered=True)


def rights(one: Container, who: User) -> Rights:
    return security.rights(Pod(), one, who)


def container(**context: object) -> Container:
    return msgspec.convert({"name": "main", "securityContext": context}, Container)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({}, having(*USUAL)),
        ({"capabilities": {"drop": ["ALL"]}}, having()),
        ({"capabilities": {"drop": ["all"], "add": ["CHOWN", "CAP_KILL"]}}, having(0, 5)),
        ({"capabilities": {"add": ["NET_ADMIN"]}}, having(*USUAL, NAMES.index("NET_ADMIN"))),
        ({"capabilities": {"drop": ["NET_RAW"], "add": ["ALL"]}}, having(*(n for n in EVERY if n != 13))),
        ({"capabilities": {"drop": ["net_raw"]}}, having(*(n for n in USUAL if n != 13))),
        ({"capabilities": {"drop": ["KILL"], "add": ["KILL"]}}, having(*(n for n in USUAL if NAMES[n] != "KILL"))),
        ({"allowPrivilegeEscalation": False}, having(*USUAL, is_final=True)),
        ({"allowPrivilegeEscalation": True}, having(*USUAL)),
        ({"privileged": True, "capabilities": {"drop": ["ALL"]}}, Rights()),
    ],
)
def test_rights(context: dict[str, object], expected: Rights) -> None:
    assert rights(container(**context), User()) == expected


@pytest.mark.parametrize(
    ("of_pod", "own", "is_filtered"),
    [
        ({}, {}, True),
        ({"type": "RuntimeDefault"}, {}, True),
        ({"type": "Unconfined"}, {}, False),
        ({"type": "Unconfined"}, {"type": "RuntimeDefault"}, True),
        ({"type": "Localhost", "localhostProfile": "x"}, {"type": "Unconfined"}, False),
    ],
)
def test_system_calls_are_filtered_unless_that_is_not_wanted(
    of_pod: dict[str, str], own: dict[str, str], is_filtered: bool
) -> None:
    pod = msgspec.convert({"spec": {"securityContext": {"seccompProfile": of_pod or None}, "containers": []}}, Pod)
    assert security.rights(pod, container(seccompProfile=own or None), User()).is_filtered is is_filtered
    assert not security.rights(pod, container(seccompProfile=own or None, privileged=True), User()).is_filtered


def test_a_profile_that_there_is_not_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^cannot load seccomp profile 'mine\.json': a lab has RuntimeDefault and Unconfined$"
    ):
        rights(container(seccompProfile={"type": "Localhost", "localhostProfile": "mine.json"}), User())


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(ConfigError, match="capability 'FLY' is not known"):
        rights(container(capabilities={"add": ["FLY"]}), User())


def test_who_it_is_is_part_of_it() -> None:
    for privileged in (True, False):
        found = rights(container(privileged=privileged), User(1, 2, (3,), "/"))
        assert (found.user, found.group, found.groups) == (1, 2, (3,))


def told(pod: dict[str, object], **of_container: object) -> list[str]:
    spec = {"securityContext": pod, "containers": [{"name": "main", "securityContext": of_container}]}
    return list(not_applied(msgspec.convert({"spec": spec}, Pod)))


def test_what_is_not_applied_is_told() -> None:
    assert told({}) == told({"runAsUser": 0, "runAsGroup": 0, "fsGroup": 0}, runAsUser=0) == []
    assert told({}, seccompProfile={"type": "Unconfined"}, readOnlyRootFilesystem=True) == []
    assert len(told({"appArmorProfile": {"type": "RuntimeDefault"}}, seLinuxOptions={"level": "s0"})) == 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"shareProcessNamespace": True}, []),
        ({"shareProcessNamespace": False, "hostPID": False}, []),
        ({"hostPID": True, "hostIPC": True}, ["hostIPC"]),
    ],
)
def test_namespaces_that_it_does_not_get_are_told(spec: dict[str, object], expected: list[str]) -> None:
    assert [line.split(" is ")[0] for line in not_shared(msgspec.convert({"spec": spec}, Pod))] == expected


def test_the_processes_of_others_are_had_or_refused_and_a_debugger_starts_without() -> None:
    asks, debugger = (
        msgspec.convert({"metadata": {"name": name}, "spec": {"hostPID": True}}, Pod)
        for name in ("any", "node-debugger-node1-x2b7c")
    )
    with pytest.raises(ConfigError, match="--allow-host-pid"):
        check_host_pid(asks, shows_processes=False)
    check_host_pid(asks, shows_processes=True)
    check_host_pid(debugger, shows_processes=False)
    assert [len(list(not_shared(debugger, shows_processes=shows))) for shows in (False, True)] == [1, 0]


def test_what_else_is_not_there_is_told() -> None:
    labels = {"level": "s0"}
    pod = {"appArmorProfile": {"type": "Unconfined"}, "seLinuxOptions": labels}
    assert told(pod, appArmorProfile={"type": "RuntimeDefault"}, procMount="Unmasked") == [
        "the pod: seLinuxOptions are not applied: processes of a lab's pods have the label of the lab",
        "container main: appArmorProfile RuntimeDefault is not applied: a lab loads no profiles",
        "container main: procMount Unmasked is not applied: what tells of the machine stays hidden in /proc",
    ]
