"""`podplane publish`: a Service on the host's localhost."""

from __future__ import annotations

import re
from typing import Any

import click

from podplane.cli.options import connect, lab_name, namespace
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.config import PUBLISH, PUBLISHED

WAIT_SECONDS = 10.0
WISH = re.compile(r"(?:(?P<host>[0-9]+):)?(?:svc/|service/)?(?P<name>[a-z0-9][-.a-z0-9]*)(?::(?P<port>[-a-z0-9]+))?")
Object = dict[str, Any]


@click.command()
@lab_name
@namespace
@click.argument("wishes", metavar="[HOST_PORT:]svc/NAME[:PORT]...", nargs=-1)
@click.option("--stop", is_flag=True, help="Publish these no more.")
def publish(folder: Folder, namespace: str, wishes: tuple[str, ...], stop: bool) -> None:
    """Bring Services to the localhost of this machine; without any, list those that are there. It lasts until --stop."""
    client = connect(folder)
    for wish in wishes:
        _change(client, namespace, wish, stop)
    if not wishes:
        _list(client)


def _change(client: Any, namespace: str, wish: str, stop: bool) -> None:
    found = WISH.fullmatch(wish)
    if found is None:
        raise LabError(f"{wish!r} is nothing that can be published: write 8080:svc/web:80")
    service = client.get("services", namespace, found["name"])
    port = _port(service, found["port"])
    host = int(found["host"] or port)
    if not 0 < host < 65536:
        raise LabError(f"{wish!r}: a port is a number from 1 to 65535")
    own = [part for part in service["metadata"].get("annotations", {}).get(PUBLISH, "").split(",") if part]
    rest = [part for part in own if part.partition(":")[0] != str(host)]
    if stop and rest == own:
        raise LabError(f"{namespace}/{found['name']} is not published at port {host}")
    text = ",".join(rest if stop else [*rest, f"{host}:{port}"])
    client.patch("services", namespace, found["name"], {"metadata": {"annotations": {PUBLISH: text or None}}})
    answer = _answer(client, namespace, found["name"], text)
    if answer != text:
        left = ",".join(rest) or None
        client.patch("services", namespace, found["name"], {"metadata": {"annotations": {PUBLISH: left}}})
        raise LabError(f"{wish}: {answer or 'the lab does not answer'}")
    if stop:
        click.echo(f"{namespace}/{found['name']} is published at port {host} no more.")
    else:
        click.echo(f"127.0.0.1:{host} leads to Service {namespace}/{found['name']}, port {port}.")


def _port(service: Object, asked: str | None) -> int:
    """The number of the Service's port that is meant: by number or name, or its only one. LabError when there is none such."""
    name, ports = (
        service["metadata"]["name"],
        [p for p in service["spec"].get("ports", ()) if p.get("protocol", "TCP") == "TCP"],
    )
    if service["spec"].get("clusterIP", "None") == "None":
        raise LabError(f"Service {name} has no cluster IP: publish one that has")
    matching = [p for p in ports if asked in (None, str(p["port"]), p.get("name"))]
    if len(matching) != 1:
        known = ", ".join(str(p["port"]) for p in ports) or "none"
        raise LabError(f"say which TCP port of Service {name} is meant: it has {known}")
    return int(matching[0]["port"])


def _answer(client: Any, namespace: str, name: str, text: str) -> str:
    """What the lab says to this wish."""

    def said(services: list[Object]) -> str:
        own: Object = next((s for s in services if s["metadata"]["name"] == name), {"metadata": {}})
        answer: str = own["metadata"].get("annotations", {}).get(PUBLISHED, "")
        return answer

    before, answer = said(client.objects("services", namespace)), ""
    for services in client.poll(
        "services", namespace, lambda found: said(found) == text or said(found) != before, WAIT_SECONDS
    ):
        answer = said(services)
    return answer


def _list(client: Any) -> None:
    rows = []
    for service in client.objects("services"):
        metadata = service["metadata"]
        for part in filter(None, metadata.get("annotations", {}).get(PUBLISHED, "").split(",")):
            host, _, port = part.partition(":")
            rows.append(f"127.0.0.1:{host}  {metadata['namespace']}/{metadata['name']}:{port}")
    click.echo("\n".join(rows) if rows else "Nothing is published.")
