"""`up`, `down`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from podplane.cli import tables
from podplane.cli.options import connect, lab_name, prepare_to_connect
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder, labs
from podplane.model.words import counted

SECOND_NIC = "172.30.0.0/22,fd00:172:30::/64"
"""The CIDRs of the nodes' second network interfaces, where none are given. All nodes that a lab may have fit in."""


@click.command()
@lab_name
@click.option("--nodes", type=int, help="How many nodes.  [default: 3]")
@click.option("--pods-per-node", type=int, default=0, help="Echo pods on each node.")
@click.option("--sandbox-only/--with-processes", default=None, help="Pods are networks without processes.")
@click.option(
    "--agents-over-https/--agents-direct",
    default=None,
    help="Agents and kubelets reach the API over HTTPS, as on a real cluster, or by direct calls.  [default: direct]",
)
@click.option(
    "--agents",
    type=click.Choice(["in-process", "processes"]),
    help="Agents are parts of the lab's process, or processes of their own, as on real machines.  [default: in-process]",
)
@click.option("--cluster-cidr", help="Pod addresses: one CIDR for each IP family.  [default: 10.244.0.0/16,fd00:10:244::/48]")
@click.option("--service-cidr", help="Service addresses.  [default: 10.96.0.0/16,fd00:10:96::/112]")
@click.option("--node-cidr", help="Node addresses.  [default: 192.168.1.0/24,fd00:192:168:1::/64]")
@click.option("--subnets", type=int, help="Place nodes in so many subnets in turns, with a router between.  [default: 1]")
@click.option(
    "--second-nic",
    metavar="[CIDRS]",
    is_flag=False,
    flag_value=SECOND_NIC,
    help=f"Nodes have an eth1, too, which leads to the world outside; its addresses are of {SECOND_NIC}, or of these.  [default: none]",
)
@click.option("--backend", help="How packets get from node to node: host-gw, vxlan, gre or auto.  [default: host-gw]")
@click.option("--cross-subnet", help="With host-gw, the tunnel to nodes of other subnets: vxlan or gre.  [default: none]")
@click.option("--cluster-domain", help="The domain of the cluster's names.  [default: cluster.local]")
@click.option("--masquerade-exclude", help="CIDRs outside that pods reach with their own address.")
@click.option(
    "--node-port-addresses", help="CIDRs: node ports are served on the nodes' addresses in them.  [default: on InternalIPs]"
)
@click.option(
    "--keep-connections/--cut-connections",
    default=None,
    help="Connections that a change of policies forbids go on, or end at once.  [default: end]",
)
@click.option(
    "--mount-home/--hide-home", default=None, help="Pods see /home, /root and your home, or they are empty.  [default: empty]"
)
@click.option("--allow-host-paths", help="Folders of the machine that hostPaths of pods give as they are.  [default: none]")
@click.option(
    "--allow-host-pid/--refuse-host-pid",
    default=None,
    help="Pods with hostPID see all processes of the lab, or do not start.  [default: do not start]",
)
@click.option(
    "--node-monitor-grace-period", type=int, help="Seconds without a heartbeat after which a node is NotReady.  [default: 50]"
)
@click.option("--port", type=int, help="Port of the API on 127.0.0.1.  [default: 6443, or a free one]")
def up(folder: Folder, pods_per_node: int, **given: Any) -> None:
    """Start a lab. What isn't said is as it was the last time, or the default."""
    from podplane.lab import operations

    began = time.monotonic()
    given = {name: value for name, value in given.items() if value is not None}
    if pods_per_node < 0:
        raise LabError(f"--pods-per-node {pods_per_node}: give 0 or more")
    existed = folder.path.exists()
    try:
        with folder.writing(), folder.exclusive(make=True):
            if running := folder.holder() is not None and folder.published:
                _add_to_running(folder, given, pods_per_node)
            else:
                operations.stop(folder)  # a start whose `up` was killed may be on its way
                folder.create()
                _show(operations.up(folder, given, pods_per_node))
    except LabError:
        if not existed and not folder.spec.exists():
            folder.delete()
        raise
    _next_steps(folder, "runs already" if running else f"is up after {time.monotonic() - began:.2f} s")


CLEAR = "\r\033[K"


def _show(progress: Iterator[Any]) -> None:
    """Progress as one line that changes on a terminal, and as nothing elsewhere; what is to be known everywhere."""
    terminal = sys.stderr.isatty()
    for step in progress:
        prepare_to_connect()  # the lab starts on another core meanwhile
        if step.note:
            click.echo(f"{CLEAR if terminal else ''}{step.note}", err=True)
        if terminal and step.step:
            count = f" {step.done}/{step.total}" if step.total else ""
            click.echo(f"{CLEAR}starting: {step.step}{count}", err=True, nl=False)
    if terminal:
        click.echo(CLEAR, err=True, nl=False)


def _add_to_running(folder: Folder, given: dict[str, Any], pods_per_node: int) -> None:
    """A lab that runs stays as it is; pods that are asked for and missing come."""
    from msgspec.structs import replace

    from podplane.cli.pods import create_and_wait
    from podplane.lab import manifests, spec

    now = spec.load(folder.spec)
    if now is not None:
        now = replace(now, port=now.port or folder.endpoint().port)
        wanted = spec.changed(now, given)
        wanted.check(pods_per_node)
        spec.check_given(given, wanted)
    for name, value in given.items():
        if now is not None and getattr(now, name) != value:
            runs = spec.option(name, getattr(now, name))
            raise LabError(f"lab {folder.name!r} runs with {runs}: `{folder.command('down')}` first, then up again")
    if now is not None and pods_per_node:
        create_and_wait(folder, connect(folder), manifests.wanted_pods(now.nodes, pods_per_node), existing_ok=True)


def _ready(objects: list[dict[str, Any]], what: str) -> str:
    """How many there are, and how many of them are ready unless all are."""
    ready, count = sum(map(tables.is_ready, objects)), counted(len(objects), what)
    return count if ready == len(objects) else f"{ready} of {count} ready"


def _next_steps(folder: Folder, state: str) -> None:
    from podplane.cli import unreached

    client = connect(folder)
    nodes = client.objects("nodes")
    pods = [pod for pod in client.objects("pods") if not tables.has_ended(pod)]
    count = f"{_ready(nodes, 'node')}, {_ready(pods, 'pod')}"
    click.echo(f"Lab {folder.name!r} {state}: {count}. API: https://{client.access.address}")
    if waiting := next((pod for pod in pods if not tables.is_ready(pod)), None):
        click.echo(f"  {waiting['metadata']['name']}: {tables.trouble(waiting) or tables.pod_state(waiting)}")
    if far := unreached.note(folder, unreached.in_lab(folder, client)):
        click.echo(f"  {far}")
    pod = pods[0]["metadata"]["name"] if pods else "web"
    steps = [
        (folder.command("run", "web"), "another pod") if pods else (folder.command("run", "web"), "a first pod"),
        (folder.command("get", "pods -o wide"), "what runs where"),
        (folder.command("exec", f"{pod} -- ip addr"), "look inside"),
        (f"export KUBECONFIG=$({folder.command('kubeconfig')})", "and kubectl works"),
        (folder.command("check"), "prove that everything reaches everything"),
        (folder.command("down"), "stop; the next up brings it back"),
    ]
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        click.echo(f"  {command.ljust(width)}   {what}")


@click.command()
@lab_name
@click.option("--all", "everything", is_flag=True, help="All labs of this user.")
@click.option("--purge", is_flag=True, help="Forget settings, pods and addresses too.")
def down(folder: Folder, everything: bool, purge: bool) -> None:
    """Stop a lab. Its settings, pods and addresses stay for the next `up`, unless they are purged."""
    from podplane.lab import operations

    for one in [Folder.named(name) for name in labs()] if everything else [folder]:
        if not one.path.exists():
            click.echo(f"There is no lab {one.name!r}.")
            continue
        with one.exclusive():
            ran = operations.stop(one)
            if purge:
                _leave_users_kubeconfig(one)
                one.delete()
        done = "stopped" if ran else "not running"
        state = "deleted" if purge else f"`{one.command('up')}` brings it back"
        click.echo(f"Lab {one.name!r}: {done}; {state}.")


def _leave_users_kubeconfig(folder: Folder) -> None:
    """What `kubeconfig --merge` put into the user's file goes with the lab."""
    from podplane.lab import kubeconfig

    for path in kubeconfig.users_files():
        with contextlib.suppress(OSError):  # a file that can't be read has nothing of ours
            if kubeconfig.entry_name(folder).encode() in path.read_bytes():
                kubeconfig.remove(folder, path)
