"""A container that was given less than all, and what joins it: what it gave up does not come back."""

from __future__ import annotations

import pytest

from podplane.kernel.rights import NAMES, Rights
from podplane.kernel.rootfs import Bind, Root
from tests.kernel.test_rootfs import FOLDER, lab_folder
from tests.kernel.test_zygote import Machine, contained

pytestmark = pytest.mark.kernel
EVERY = tuple(range(len(NAMES)))
STATUS = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status | tr -d '\\t'"


def without(*numbers: int, is_final: bool = False) -> Rights:
    return Rights(numbers, is_final)


@contained
async def test_capabilities_that_are_dropped_are_gone(machine: Machine) -> None:
    lab_folder()
    said = await machine.says(STATUS, root=Root(FOLDER), rights=without(*EVERY, is_final=True))
    assert said.split() == [*(f"Cap{name}:{0:016x}" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")), "NoNewPrivs:1"]
    few = without(*(n for n in EVERY if NAMES[n] not in ("CHOWN", "NET_RAW")))
    said = await machine.says(STATUS, root=Root(FOLDER), rights=few)
    assert {"CapPrm:0000000000002001", "CapEff:0000000000002001", "CapBnd:0000000000002001", "NoNewPrivs:0"} <= set(
        said.split()
    )


@contained
async def test_what_joins_has_no_more(machine: Machine) -> None:
    lab_folder()
    dropped = without(*EVERY)
    container = await machine.running(root=Root(FOLDER), rights=dropped)
    tries = "mount -t tmpfs none /mnt || hostname other || ip link add br0 type bridge || echo refused"
    assert await machine.says(f"exec 2>/dev/null; {tries}", join=container.id, rights=dropped) == "refused"


@contained
async def test_a_read_only_root_is_that_but_for_what_the_pod_mounts(machine: Machine) -> None:
    folder = lab_folder()
    (folder / "data").mkdir()
    root = Root(
        FOLDER, [Bind(f"{FOLDER}/data", "/data"), Bind(f"{FOLDER}/data", "/var/log")], hidden=["/var/tmp"], read_only=True
    )
    script = """exec 2>/dev/null
        for f in / /etc /usr /usr/bin /tmp /var/tmp /root /data /var/log /dev/shm; do touch $f/x && echo $f; done
        mount -o remount,rw,bind / && echo remount; mount -o remount,rw,bind /etc && echo remount; true"""
    assert (await machine.says(script, root=root)).split() == ["/data", "/var/log", "/dev/shm"]
