"""What the agent's process must be allowed to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.kernel import rights
from podplane.kernel.sysctl import NET, path_of, use_folder
from podplane.machine import capabilities
from podplane.machine.errors import MachineError


@pytest.fixture(autouse=True)
def usual_place() -> Iterator[None]:
    yield
    use_folder(NET)


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ({"NET_RAW", "SYS_ADMIN"}, "the agent has no CAP_NET_ADMIN: give it that"),
        ({"NET_ADMIN"}, "the agent has no CAP_NET_RAW: give it that"),
        (set(), "the agent has no CAP_NET_ADMIN and no CAP_NET_RAW: give it that"),
    ],
)
def test_what_is_missing_is_named(has: set[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "effective", lambda: frozenset(has))
    with pytest.raises(MachineError, match=said):
        capabilities.prepare(NET)


def test_sysctls_of_the_network_are_found_at_another_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rights, "effective", lambda: frozenset(capabilities.NEEDED))
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4" / "ip_forward").touch()
    capabilities.prepare(str(tmp_path))
    assert path_of("net.ipv4.ip_forward") == f"{tmp_path}/ipv4/ip_forward"
    assert path_of("net.ipv4.conf.a/b.forwarding") == f"{tmp_path}/ipv4/conf/a.b/forwarding"
    assert path_of("user.max_net_namespaces") == "/proc/sys/user/max_net_namespaces"


def test_a_place_without_sysctls_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rights, "effective", lambda: frozenset(capabilities.NEEDED))
    with pytest.raises(
        MachineError, match="is no mount of /proc/sys/net, and the agent sets sysctls of the network: mount the machine's"
    ):
        capabilities.prepare(str(tmp_path / "none"))


def test_the_capabilities_of_this_process_are_those_that_the_kernel_says() -> None:
    words = Path("/proc/thread-self/status").read_text().split()
    number = int(words[words.index("CapEff:") + 1], 16)
    known = (1 << len(rights.NAMES)) - 1
    assert sum(1 << rights.NAMES.index(name) for name in rights.effective()) == number & known
