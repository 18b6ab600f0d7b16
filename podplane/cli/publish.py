"""`podplane publish`: a Service on the host's localhost."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import click

from podplane.cli.names import KIND, NAME
from podplane.cli.options import connect, lab_name, namespace
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.config import NOT_PUBLISHED, PUBLISH, PUBLISHED

WAIT_SECONDS = 10.0
FIRST_FREE_PORT = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
"""Lower ports are for who has CAP_NET_BIND_SERVICE in the user namespace of the host's network: a lab has it in its own only."""
HIGHER = 8000
WISH = re.compile(f"(?:(?P<host>[0-9]+):)?{KIND}(?P<name>{NAME})(?::(?P<port>[-a-z0-9]+))?")
Object = dict[str, Any]


@click.command()
@lab_name
@namespace
@click.argument("wishes", metavar="[HOST_PORT:]svc/NAME[:PORT]...", nargs=-1)
@click.option("--stop", is_flag=True, help="Publish these no more.")
@click.option("--all", "everything", is_flag=True, help="With --stop: all of the namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="List, or stop, those of all namespaces.")
def publish(
    folder: Folder, namespace: str, wishes: tuple[str, ...], stop: bool, everything: bool, all_namespaces: bool
) -> None:
    """Bring Services to the localhost of this machine; without any, list those that are there. It lasts until --stop."""
    if everything and (wishes or not stop):
        raise LabError("--all goes with --stop, and names no Service")
    if stop and not wishes and not everything:
        raise LabError("say what to publish no more: --stop 8080:svc/web, or --stop --all")
    client = connect(folder)
    if wishes:
        sys.exit(2 if sum([not _try(client, namespace, wish, stop) for wish in wishes]) else 0)
    space = "" if all_namespaces else namespace
    if everything:
        _stop_all(client, space)
    else:
        _list(client, space)


def _try(client: Any, namespace: str, wish: str, stop: bool) -> bool:
    """See to one wish; False, and a line that says why, when that can't be."""
    from podplane.kubeapi.errors import ApiError

    try:
        _change(client, namespace, wish, stop)
    except (LabError, ApiError) as error:
        click.echo(f"podplane: {error}", err=True)
        return False
    return True


def _change(client: Any, namespace: str, wish: str, stop: bool) -> None:
    found = WISH.fullmatch(wish)
    if found is None:
        raise LabError(f"{wish!r} is nothing that can be published: write 8080:svc/web:80")
    service = client.get("services", namespace, found["name"])
    if stop:
        _stop(client, service, found["host"], found["port"])
    else:
        port = _port(service, found["port"])
        _start(client, service, wish, int(found["host"] or port), port)


def _start(client: Any, service: Object, wish: str, host: int, port: int) -> None:
    if not 0 < host < 65536:
        raise LabError(f"{wish!r}: a port is a number from 1 to 65535")
    rest = [(h, p) for h, p in _places(service, PUBLISH) if h != host]
    text = _set(client, service, [*rest, (host, port)])
    if problem := _problem(client, service, text):
        _problem(client, service, _set(client, service, rest))
        hint = _hint(service["metadata"]["name"], port) if os.strerror(errno.EACCES) in problem else ""
        raise LabError(f"{wish}: {problem}{hint}")
    click.echo(f"127.0.0.1:{host} leads to Service {_path(service)}, port {port}.")


def _hint(name: str, port: int) -> str:
    """Why a low port is not for a lab, and which one to take."""
    try:
        with open(FIRST_FREE_PORT) as file:
            first = int(file.read())
    except (OSError, ValueError):
        return ""
    why = f"ports below {first} are not for a lab, which has no rights in the host's network, whoever starts it"
    return f" ({why}: write {HIGHER + port if port < first else port}:svc/{name}:{port})"


def _stop(client: Any, service: Object, host: str | None, port: str | None) -> None:
    """Stop what is published at this port of the host; without one, at the port that the Service's port has by itself."""
    number = int(host or _port(service, port))
    places = _places(service, PUBLISH)
    rest = [place for place in places if place[0] != number]
    if rest == places:
        raise LabError(f"{_path(service)} is not published at port {number}")
    _set_and_wait(client, service, rest)
    click.echo(f"{_path(service)} is published at port {number} no more.")


def _stop_all(client: Any, namespace: str) -> None:
    stopped = 0
    for service in client.objects("services", namespace):
        if places := _places(service, PUBLISH):
            _set_and_wait(client, service, [])
            for host, _ in places:
                click.echo(f"{_path(service)} is published at port {host} no more.")
            stopped += len(places)
    if not stopped:
        _say_none(namespace)


def _set_and_wait(client: Any, service: Object, places: list[tuple[int, int]]) -> None:
    if problem := _problem(client, service, _set(client, service, places)):
        raise LabError(f"{_path(service)}: {problem}")


def _set(client: Any, service: Object, places: list[tuple[int, int]]) -> str:
    """Write the wish; its text."""
    metadata, text = service["metadata"], ",".join(f"{host}:{port}" for host, port in places)
    client.patch("services", metadata["namespace"], metadata["name"], {"metadata": {"annotations": {PUBLISH: text or None}}})
    return text


def _places(service: Object, annotation: str) -> list[tuple[int, int]]:
    """(the host's port, the Service's port) of each that the annotation names."""
    return list(_read(service["metadata"].get("annotations", {}).get(annotation, "")))


def _read(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        host, _, port = part.strip().partition(":")
        if host.isdecimal() and port.isdecimal():
            yield int(host), int(port)


def _path(service: Object) -> str:
    return f"{service['metadata']['namespace']}/{service['metadata']['name']}"


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


def _problem(client: Any, service: Object, text: str) -> str:
    """What the lab says against this wish; "" when it is done."""
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    answer = ""

    def answers(services: list[Object]) -> bool:
        nonlocal answer
        own: Object = next((s for s in services if s["metadata"]["name"] == name), {"metadata": {}})
        answer = own["metadata"].get("annotations", {}).get(PUBLISHED, "")
        return answer == text or str(answer).startswith(f"{text}{NOT_PUBLISHED}")

    for services in client.poll("services", namespace, answers, WAIT_SECONDS):
        if answers(services):
            return answer.removeprefix(text).removeprefix(NOT_PUBLISHED)
    return "the lab does not answer"


def _list(client: Any, namespace: str) -> None:
    rows = [
        f"127.0.0.1:{host}  {_path(service)}:{port}"
        for service in client.objects("services", namespace)
        for host, port in _places(service, PUBLISHED)
    ]
    if rows:
        click.echo("\n".join(rows))
    else:
        _say_none(namespace)


def _say_none(namespace: str) -> None:
    click.echo(f"Nothing is published in namespace {namespace}." if namespace else "Nothing is published.")
