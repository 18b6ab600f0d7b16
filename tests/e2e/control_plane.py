"""The lab's API server as a process with no controllers, whose nodes get no blocks: `python -m tests.e2e.control_plane FOLDER PORT USER…`

Each USER has a token that is its name. Everything is stored in FOLDER: one that starts again there goes on.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import sys
from pathlib import Path

from podplane.apiserver.asgi import serve
from podplane.apiserver.audit import AuditLog
from podplane.apiserver.identity import controller
from podplane.lab.certificates import prepare
from podplane.services import pools
from tests.unit.apiserver.test_server import Api

AUDIT, READY = "audit.log", "ready"
DEFINITIONS, RANGES = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/networking.k8s.io/v1/servicecidrs"


def kubeconfig(folder: Path, port: int, token: str, ca: Path) -> None:
    """The way of a user to it, in a file of this name."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(ca)}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (folder / f"{token}.kubeconfig").write_text(json.dumps(content))


async def main(folder: Path, port: int, users: list[str]) -> None:
    """Serve until it is killed."""
    now = datetime.datetime.now(datetime.UTC)
    certificates = prepare(folder, ["localhost"], [ipaddress.ip_address("127.0.0.1")], now)
    (folder / "ca.crt").write_text(certificates.authority)
    api = Api(folder / "store", ())
    api.server._audit = AuditLog(folder / AUDIT)
    for user in users:
        api.tokens.add(user, controller(user))
    for user in (*users, "secret"):
        kubeconfig(folder, port, user, folder / "ca.crt")
    if not (folder / READY).exists():
        await api("POST", DEFINITIONS, pools.definition())
        await api("POST", RANGES, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}})
    with socket.create_server(("127.0.0.1", port)) as listener:
        (folder / READY).touch()
        await serve(api.server.handle, [listener], certificates.certificate, certificates.key)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
