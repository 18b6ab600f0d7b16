"""What the API outlives: SIGKILL while it writes, readers that don't read, clients that go away, bodies that are too large."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from typing import Any

import pytest

from podplane.kubeapi.errors import ApiError
from podplane.kubeapi.http import HttpClient
from tests.e2e.conftest import Podplane

pytestmark = pytest.mark.e2e
MAPS = "/api/v1/namespaces/default/configmaps"


def connection(lab: Podplane) -> http.client.HTTPSConnection:
    """A plain connection to the lab's API."""
    access = lab.folder.access()
    return http.client.HTTPSConnection(access.host, access.port, timeout=20, context=access.context())


def ask(lab: Podplane, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    token = lab.folder.endpoint().token
    with contextlib.closing(connection(lab)) as plain:
        plain.request(method, path, body, {"authorization": f"Bearer {token}", **headers})
        answer = plain.getresponse()
        return answer.status, json.loads(answer.read())


def config_map(name: str, size: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"a": "x" * size}}


def test_what_was_acknowledged_is_there_after_sigkill(podplane: Podplane) -> None:
    podplane("up", "--nodes", "1", "--sandbox-only")
    holder, access = podplane.folder.holder(), podplane.folder.access()
    assert holder is not None
    acknowledged: list[str] = []

    def write(worker: int) -> None:
        client = HttpClient(access)
        for i in range(10_000):
            name = f"w{worker}-{i}"
            try:
                client.create("configmaps", "default", config_map(name))
            except ApiError:
                return
            acknowledged.append(name)

    workers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    while len(acknowledged) < 200 and any(worker.is_alive() for worker in workers):
        time.sleep(0.005)
    os.kill(holder, signal.SIGKILL)
    for worker in workers:
        worker.join(30)
    assert 200 <= len(acknowledged) < 40_000
    podplane("up")
    found = {one["metadata"]["name"] for one in podplane.api.objects("configmaps", "default")}
    assert set(acknowledged) <= found
    versions = [int(one["metadata"]["resourceVersion"]) for one in podplane.api.objects("configmaps", "default")]
    assert int(podplane.api.create("configmaps", "default", config_map("later"))["metadata"]["resourceVersion"]) > max(versions)


def test_the_way_in_stays_good_over_stops_and_ends_with_the_lab(podplane: Podplane) -> None:
    podplane("up", "--nodes", "1", "--sandbox-only")
    before = podplane.folder.access()
    podplane("down")
    podplane("up")
    after = podplane.folder.access()
    assert (after.token, after.ca) == (before.token, before.ca)
    podplane("down", "--purge")
    podplane("up", "--nodes", "1", "--sandbox-only")
    assert podplane.folder.access().ca != before.ca
    before.port = podplane.folder.access().port
    with pytest.raises(ApiError, match="certificate"):
        HttpClient(before).objects("nodes")


def test_a_port_that_is_taken_is_said_in_the_kubeconfig(podplane: Podplane) -> None:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 6443)):
        pass  # free or taken: two labs can't both have it
    podplane("up", "--nodes", "1", "--sandbox-only")
    first = podplane.folder.endpoint().port
    other = Podplane(podplane.home)
    try:
        other("up", "--nodes", "1", "--sandbox-only")
        text = other.folder.kubeconfig.read_text()
        assert f"https://127.0.0.1:{other.folder.endpoint().port}" in text
        assert other.folder.endpoint().port != first
    finally:
        other("down", "--purge", code=None)


def test_bodies_that_are_too_large(lab: Podplane) -> None:
    body = json.dumps(config_map("big", 3 * 2**20)).encode()
    status, found = ask(lab, "POST", MAPS, body, **{"content-type": "application/json"})
    assert (status, found["reason"]) == (413, "RequestEntityTooLarge")
    assert ask(lab, "GET", MAPS)[0] == 200


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("application/json", b"{", 400),
        ("application/yaml", b"a: [", 400),
        ("application/yaml", b"a: &x [1]\nb: *x", 400),
        ("application/yaml", b"metadata: {name: from-yaml}\ndata: {a: '1'}", 201),
        ("application/x-www-form-urlencoded", b"a=b", 415),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff", 400),
    ],
)
def test_bodies_of_all_kinds(lab: Podplane, kind: str, body: bytes, code: int) -> None:
    status, found = ask(lab, "POST", MAPS, body, **{"content-type": kind})
    assert status == code
    assert found["kind"] == ("ConfigMap" if code == 201 else "Status")
    if code == 201:
        assert ask(lab, "DELETE", f"{MAPS}/from-yaml")[0] == 200


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer a.b.c"])
def test_strangers_get_health_and_version_only(lab: Podplane, authorization: str) -> None:
    with contextlib.closing(connection(lab)) as plain:
        for path, code in (("/livez", 200), ("/readyz", 200), ("/version", 200), ("/api", 401), (MAPS, 401), ("/nosuch", 401)):
            plain.request("GET", path, headers={"authorization": authorization} if authorization else {})
            answer = plain.getresponse()
            answer.read()
            assert (path, answer.status) == (path, code)


def memory(lab: Podplane) -> int:
    """Kilobytes that the lab's process has in memory."""
    holder = lab.folder.holder()
    with open(f"/proc/{holder}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_readers_that_do_not_read_are_dropped(lab: Podplane) -> None:
    """Ten watches that read nothing while 100 MB pass: the lab doesn't keep it for them, and others are served."""
    token, slow = lab.folder.endpoint().token, []
    lab.api.create("configmaps", "default", config_map("changing"))
    before = memory(lab)
    for _ in range(10):
        plain = connection(lab)
        plain.request("GET", f"{MAPS}?watch=true", headers={"authorization": f"Bearer {token}"})
        slow.append(plain)
    for i in range(100):
        lab.api.patch("configmaps", "default", "changing", {"data": {"a": f"{i}" + "x" * 1_000_000}})
    assert memory(lab) - before < 500_000, "history and backlogs are bounded"
    assert lab.api.get("configmaps", "default", "changing")["data"]["a"].startswith("99x")
    for plain in slow:
        plain.close()
    lab.api.delete("configmaps", "default", "changing")


def open_files(process: int | None) -> int:
    """So many, once there are no more and no fewer for a while: agents open those of sysctls some time after a start."""
    count = -1
    while count != (count := len(os.listdir(f"/proc/{process}/fd"))):
        time.sleep(1.5)
    return count


def test_clients_that_go_away_leave_nothing_open(lab: Podplane) -> None:
    holder, token = lab.folder.holder(), lab.folder.endpoint().token
    before = open_files(holder)
    for i in range(60):
        plain = connection(lab)
        plain.connect()
        if i % 3 == 0:
            plain.request("GET", f"{MAPS}?watch=true", headers={"authorization": f"Bearer {token}"})
            plain.getresponse()
        elif i % 3 == 1:
            plain.putrequest("POST", MAPS)
            plain.putheader("content-length", "1000")
            plain.endheaders(b"half of a body")
        assert isinstance(plain.sock, ssl.SSLSocket)
        plain.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
        plain.sock.close()
    end = time.monotonic() + 10
    while len(os.listdir(f"/proc/{holder}/fd")) > before and time.monotonic() < end:
        time.sleep(0.05)
    assert len(os.listdir(f"/proc/{holder}/fd")) <= before
