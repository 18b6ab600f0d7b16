"""Sysctls of pods."""

from __future__ import annotations

import msgspec
import pytest

from podplane.kernel.ids import COUNT, FIRST, Ids
from podplane.model.pod import Pod
from podplane.runtime.environment import ConfigError
from podplane.runtime.sysctls import PINGS, groups, of

PORTS = "net.ipv4.ip_unprivileged_port_start"
MANY = Ids(FIRST, COUNT)


def pod(*, on_host: bool = False, **sysctls: str) -> Pod:
    wanted = [{"name": name.replace("__", "/"), "value": value} for name, value in sysctls.items()]
    spec = {"containers": [], "hostNetwork": on_host, "securityContext": {"sysctls": wanted}}
    return msgspec.convert({"spec": spec}, Pod)


def test_every_process_of_a_pod_may_ping_and_listen_on_any_port() -> None:
    assert of(pod(), Ids()) == {PORTS: "0", PINGS: "0 0"}
    assert of(pod(), MANY) == {PORTS: "0", PINGS: f"{FIRST} {FIRST + COUNT - 1}"}


def test_the_network_of_a_node_is_not_changed() -> None:
    assert of(pod(on_host=True), MANY) == {}


def test_those_that_are_asked_for_come_before_the_usual_ones() -> None:
    asked = pod(**{PORTS: "80", "net__ipv4__tcp_syncookies": "0", "kernel.shm_rmid_forced": "1"})
    assert of(asked, Ids()) == {PORTS: "80", PINGS: "0 0", "net.ipv4.tcp_syncookies": "0", "kernel.shm_rmid_forced": "1"}


@pytest.mark.parametrize("name", ["net.core.somaxconn", "kernel.pid_max", "net.ipv4.ip_forward", "../x", ""])
def test_one_that_is_not_safe_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f'^forbidden sysctl: "{name}" not allowlisted$'):
        of(pod(**{name: "1"}), Ids())


def test_one_of_the_network_is_refused_on_the_network_of_a_node() -> None:
    with pytest.raises(ConfigError, match="not allowed with host net enabled"):
        of(pod(on_host=True, **{PORTS: "0"}), Ids())
    assert of(pod(on_host=True, **{"kernel.shm_rmid_forced": "1"}), Ids()) == {"kernel.shm_rmid_forced": "1"}


@pytest.mark.parametrize(
    ("value", "users", "expected"),
    [
        ("1 0", MANY, "1 0"),
        ("5 7", MANY, f"{FIRST + 5} {FIRST + 7}"),
        ("5 7", Ids(), "5 7"),
        ("x", MANY, "x"),
        ("1", MANY, "1"),
    ],
)
def test_groups_are_those_of_the_lab(value: str, users: Ids, expected: str) -> None:
    assert groups(value, users) == expected
