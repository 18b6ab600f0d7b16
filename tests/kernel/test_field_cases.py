"""What users of other networks suffered from, with an agent's process and its plugin: each case for its whole kind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podplane.kernel.namespace import NetworkNamespace, Workers
from podplane.machine.errors import MachineError
from podplane.machine.program import run_folder
from tests.kernel.lives import Machine, answer, until, veth
from tests.kernel.test_foreign import run
from tests.unit.cni import programs
from tests.unit.cni.programs import words_of

pytestmark = pytest.mark.kernel


@contextlib.contextmanager
def machine_in(folder: Path, pods: int) -> Iterator[Machine]:
    made = Machine(folder, words_of("c", folder), pods)
    try:
        yield made
    finally:
        made.close()
        programs.clean()


def attached(machine: Machine, name: str, **fields: Any) -> str:
    """The address that a pod gets."""
    status, said = answer(machine.call("ADD", name, **fields))
    assert status == 0, said
    return str(said["ips"][0]["address"].partition("/")[0])


def test_a_pod_whose_namespace_vanished_is_detached_and_its_address_is_free(tmp_path: Path) -> None:
    """kubernetes/kubernetes#44307, #45334, cilium/cilium#40459: DEL without a namespace failed, and pods stayed Terminating."""
    with machine_in(tmp_path, 5) as machine:
        machine.start()
        attached(machine, "p0")
        attached(machine, "p1")
        path = f"/proc/{machine.holders['p0'].pid}/ns/net"
        machine.leave("p0")
        machine.leave("p1")
        for name, netns in (("p0", path), ("p0", path), ("p0", ""), ("p1", ""), ("p1", "/run/netns/none"), ("p3", path)):
            assert answer(machine.call("DEL", name, netns=netns)) == (0, None)
        machine.end(signal.SIGKILL)
        machine.start()
        assert answer(machine.call("DEL", "p0", netns=path)) == (0, None)
        assert attached(machine, "p2") == "10.244.1.4"
        until(lambda: machine.veths() == {veth("p2")}, "no link of pods that are gone")
        status, said = answer(machine.call("ADD", "p3", netns="/run/netns/none"))
        assert (status, said["code"], "/run/netns/none: No such file" in said["msg"]) == (1, 4, True), said


def test_a_burst_of_pods_waits_for_an_agent_that_starts_late_and_is_killed_meanwhile(tmp_path: Path) -> None:
    """amazon-vpc-cni-k8s#282, projectcalico/calico#13884, cilium/cilium#6556: the node was ready, and sandboxes failed in bursts."""
    with machine_in(tmp_path, 9) as machine:
        status, said = answer(machine.call("STATUS"))
        assert (status, said["code"]) == (1, 50), "it is not ready, and says so"
        burst = {name: machine.call("ADD", name) for name in (f"p{number}" for number in range(8))}
        machine.start()
        until(lambda: any(one.poll() is not None for one in burst.values()), "the first answer")
        machine.end(signal.SIGKILL)
        time.sleep(0.3)
        machine.start()
        answers = {name: answer(one) for name, one in burst.items()}
        assert {status for status, _ in answers.values()} == {0}, answers
        ips = {said["ips"][0]["address"] for _, said in answers.values()}
        assert len(ips) == len(burst)
        until(lambda: machine.veths() == set(map(veth, burst)), "a link for each")


def test_a_full_disk_refuses_pods_and_harms_none(tmp_path: Path) -> None:
    with machine_in(tmp_path, 4) as machine:
        (tmp_path / "run").mkdir(mode=0o700)
        run(f"mount -t tmpfs -o size=2m,mode=700 none {tmp_path}/run")
        machine.start()
        until(lambda: (tmp_path / "run" / "cluster").exists(), "what is known of the cluster")
        first = attached(machine, "p0")
        fill(tmp_path / "run" / "filler")
        refused = False
        for _ in range(100):  # the journal has room in its last page
            status, said = answer(machine.call("ADD", "p1"))
            if refused := status != 0:
                break
            assert answer(machine.call("DEL", "p1")) == (0, None)
        assert refused and said["code"] == 100 and "attachments.journal: No space left on device" in said["msg"], said
        assert machine.veths() == {veth("p0")}
        machine.end(signal.SIGKILL)
        (tmp_path / "run" / "filler").unlink()
        machine.start()
        assert attached(machine, "p2") != first
        assert answer(machine.call("DEL", "p0")) == (0, None)
        until(lambda: machine.veths() == {veth("p2")}, "what was attached last")


def fill(path: Path) -> None:
    """Until the disk takes no byte more."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert os.statvfs(path).f_bavail == 0


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    run(f"mount -t tmpfs -o mode=700 none {tmp_path}; mount -o remount,bind,ro {tmp_path}")
    with (
        pytest.raises(MachineError, match="lock: Read-only file system: give a folder in --run-dir"),
        run_folder(str(tmp_path)),
    ):
        raise AssertionError
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (tmp_path / "x").touch()


def test_what_is_sent_to_a_udp_host_port_all_the_time_comes_to_the_next_pod(tmp_path: Path) -> None:
    """containernetworking/plugins#123, kubernetes/kubernetes#58336, #66651, #95258: it went to the dead pod as long as the client sent."""
    with machine_in(tmp_path, 2) as machine:
        machine.start()
        asks = {"runtimeConfig": {"portMappings": [{"hostPort": 8125, "containerPort": 8125, "protocol": "udp"}]}}
        workers = Workers(1)

        def served(name: str) -> socket.socket:
            with NetworkNamespace.open(f"/proc/{machine.holders[name].pid}/ns/net", workers) as namespace:
                made: socket.socket = namespace.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("", 8125))
            made.setblocking(False)
            return made

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("192.168.1.10", 40000))

            def arrives(server: socket.socket) -> bool:
                with contextlib.suppress(OSError):
                    client.sendto(b"x", ("192.168.1.10", 8125))
                time.sleep(0.02)
                with contextlib.suppress(BlockingIOError):
                    return bool(server.recv(100))
                return False

            for name in ("p0", "p1"):
                attached(machine, name, **asks)
                with served(name) as server:
                    until(lambda server=server: arrives(server), f"a datagram at {name}")  # type: ignore[misc]  # of this turn
                assert answer(machine.call("DEL", name)) == (0, None)
                for _ in range(3):  # it sends on, and nobody is there
                    with contextlib.suppress(OSError):
                        client.sendto(b"x", ("192.168.1.10", 8125))
        workers.close()
