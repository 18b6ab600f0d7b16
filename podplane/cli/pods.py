"""`run`, `get`, `delete`: thin conveniences over the API."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from typing import Any

import click

from podplane.cli import tables
from podplane.cli.names import some
from podplane.cli.options import connect, get_pod, lab_name, namespace, pod_place
from podplane.cli.waiting import telling
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.words import counted

WAIT_SECONDS = 30.0
RESOURCES = {"nodes": "nodes", "node": "nodes", "no": "nodes", "pods": "pods", "pod": "pods", "po": "pods"}


@click.command(context_settings={"ignore_unknown_options": False})
@lab_name
@namespace
@click.argument("pod")
@click.argument("command", nargs=-1)
@click.option("--node", help="On which node, or on the host `outside`; otherwise the one with the fewest pods.")
@click.option("--replicas", type=int, help="So many pods, POD-0, POD-1, …")
@click.option("--port", type=int, help="Where the echo server listens.  [default: 8080]")
def run(
    folder: Folder, namespace: str, pod: str, command: tuple[str, ...], node: str | None, replicas: int | None, port: int | None
) -> None:
    """Run a pod with COMMAND of this machine in it, or with an echo server; returns when it runs."""
    from podplane.lab import manifests, spec
    from podplane.lab.underlay import OUTSIDE

    if replicas is not None and replicas < 1:
        raise LabError(f"--replicas {replicas}: give 1 or more")
    if port is not None and not 0 < port < 65536:
        raise LabError(f"--port {port}: give 1 to 65535")
    client = connect(folder)
    settings = spec.load(folder.spec)
    if settings is not None and replicas is not None and replicas > (room := settings.nodes * settings.plan().pod_capacity):
        raise LabError(f"--replicas {replicas}: this lab has room for {counted(room, 'pod')}")
    if node:
        names = [n["metadata"]["name"] for n in client.objects("nodes")]
        if node not in (*names, OUTSIDE):
            raise LabError(f"there is no node {node!r}: this lab has {some(names)}, and the host {OUTSIDE}")
    names = [pod] if replicas is None else [f"{pod}-{i}" for i in range(replicas)]
    wanted = [
        manifests.pod(name, node=node or "", command=command, namespace=namespace, labels={"run": pod}, port=port)
        for name in names
    ]
    found = create_and_wait(folder, client, wanted)
    for one in found:
        ips = ", ".join(tables.pod_ips(one))
        click.echo(f"{one['metadata']['name']} runs on {one['spec'].get('nodeName')} with {ips}")


def create_and_wait(
    folder: Folder, client: Any, wanted: Sequence[dict[str, Any]], *, existing_ok: bool = False
) -> list[dict[str, Any]]:
    """Create pods and wait until they run; the pods. LabError when one of them does not come to run.

    When one can't be created, those created before it are deleted again: nothing half made.
    """
    from podplane.kubeapi.errors import AlreadyExists, ApiError

    created: list[dict[str, Any]] = []
    for manifest in wanted:
        space = manifest["metadata"]["namespace"]
        try:
            created.append(client.create("pods", space, manifest))
        except ApiError as error:
            if existing_ok and isinstance(error, AlreadyExists):
                continue
            for pod in created:
                client.delete("pods", space, pod["metadata"]["name"], grace=0, uid=pod["metadata"]["uid"])
            raise
    uids = {pod["metadata"]["uid"] for pod in created}
    found: list[dict[str, Any]] = []
    space = wanted[0]["metadata"]["namespace"] if wanted else "default"

    def pending(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [pod for pod in pods if pod["metadata"]["uid"] in uids and tables.pod_state(pod) == "Pending"]

    def waited_for(pods: list[dict[str, Any]]) -> str:
        return f"{some([pod['metadata']['name'] for pod in pending(pods)])} to run"

    def reason(pods: list[dict[str, Any]]) -> str:
        return next(filter(None, map(tables.why_waiting, pending(pods))), "")

    for pods in client.poll("pods", space, lambda pods: _all_began(pods, uids), WAIT_SECONDS, telling(waited_for, reason)):
        found = [pod for pod in pods if pod["metadata"]["uid"] in uids]
    for pod in found:
        if tables.pod_state(pod) not in ("Running", "Completed"):
            why = tables.trouble(pod) or f"it is {tables.pod_state(pod)}"
            name = pod["metadata"]["name"]
            remove = folder.command("delete", f"pod {name}" + (f" -n {space}" if space != "default" else ""))
            raise LabError(f"pod {name} does not run: {why} (it stays; `{remove}` removes it)")
    return found


def _all_began(pods: Sequence[dict[str, Any]], uids: set[str]) -> bool:
    """Every one of them runs, has ended, or can't."""
    ours = [pod for pod in pods if pod["metadata"]["uid"] in uids]
    return all(tables.pod_state(pod) != "Pending" or tables.failure(pod) for pod in ours)


@click.command()
@lab_name
@namespace
@click.argument("resource", type=click.Choice(sorted(RESOURCES), case_sensitive=False))
@click.argument("which", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml"]), help="More columns, or whole objects.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Pods of all namespaces.")
@click.option("-l", "--selector", default="", help="Only objects with these labels (a=b, a!=b, a in (b,c), a, !a).")
def get(
    folder: Folder,
    namespace: str,
    resource: str,
    which: tuple[str, ...],
    output: str | None,
    all_namespaces: bool,
    selector: str,
) -> None:
    """List nodes or pods, all or those named."""
    client = connect(folder)
    plural = RESOURCES[resource.lower()]
    if which:
        places = [("", name) if plural == "nodes" else pod_place(name, namespace) for name in which]
        objects = [client.get(plural, *place) if plural == "nodes" else get_pod(client, *place) for place in places]
    else:
        space = "" if all_namespaces or plural == "nodes" else namespace
        objects = client.objects(plural, space, labelSelector=selector)
    objects.sort(key=lambda o: _natural(o["metadata"]["name"]) if plural == "nodes" else 0)
    if output in ("json", "yaml"):
        _whole(objects, output, single=len(which) == 1)
    elif not objects:
        click.echo(f"No resources found in {namespace} namespace." if plural == "pods" else "No resources found.", err=True)
    else:
        now = datetime.datetime.now(datetime.UTC)
        show = tables.nodes(objects, output == "wide", now) if plural == "nodes" else None
        click.echo(show or tables.pods(objects, output == "wide", now, all_namespaces))


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _whole(objects: list[dict[str, Any]], output: str, single: bool) -> None:
    document: Any = objects[0] if single else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects}
    click.echo(tables.document_text(document, output))


@click.command()
@lab_name
@namespace
@click.argument("resource", type=click.Choice(["pod", "pods", "po"]))
@click.argument("which", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All pods of the namespace.")
@click.option("--now", is_flag=True, help="Without the pods' grace.")
def delete(folder: Folder, namespace: str, resource: str, which: tuple[str, ...], everything: bool, now: bool) -> None:
    """Delete pods, and wait until they are gone."""
    client = connect(folder)
    if bool(which) is everything:
        raise LabError("say which pods to delete, or --all")
    places = [pod_place(name, namespace) for name in which]
    doomed = [get_pod(client, *place) for place in places] or client.objects("pods", namespace)
    for pod in doomed:
        client.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], grace=1 if now else None)
    spaces = {pod["metadata"]["namespace"] for pod in doomed}
    uids = {pod["metadata"]["uid"] for pod in doomed}
    left = doomed

    def are_gone(pods: list[dict[str, Any]]) -> bool:
        return not uids & {pod["metadata"]["uid"] for pod in pods}

    def waited_for(pods: list[dict[str, Any]]) -> str:
        return f"{some([pod['metadata']['name'] for pod in pods if pod['metadata']['uid'] in uids])} to end"

    for pods in client.poll("pods", spaces.pop() if len(spaces) == 1 else "", are_gone, WAIT_SECONDS, telling(waited_for)):
        left = [pod for pod in pods if pod["metadata"]["uid"] in uids]
    gone = uids - {pod["metadata"]["uid"] for pod in left}
    for pod in doomed:
        if pod["metadata"]["uid"] in gone:
            click.echo(f'pod "{pod["metadata"]["name"]}" deleted')
    if left:
        names = ", ".join(pod["metadata"]["name"] for pod in left)
        click.echo(f"podplane: still there after {WAIT_SECONDS:.0f} s: {names}", err=True)
        sys.exit(1)
