"""`agent`: the agent of one node, on the node; and what a machine and a cluster need for it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podplane.kubeapi.access import Access

UNIT_FOLDER = "/etc/systemd/system"


@click.group(invoke_without_command=True)
@click.option(
    "--kubeconfig", default="", help="Address of the API and credentials.  [default: those of the pod that this runs in]"
)
@click.option("--config", default="", help="Settings, in YAML.  [default: none; what it leaves out is found out]")
@click.option("--node-name", default="", help="The name of this machine's Node.  [default: its host name]")
@click.option("--run-dir", default="", help="Where the agent's socket and journal are.  [default: /run/podplane]")
@click.option("--dry-run", is_flag=True, help="Say what it would do, or why it would refuse, and change nothing.")
@click.pass_context
def agent(context: click.Context, kubeconfig: str, config: str, node_name: str, run_dir: str, dry_run: bool) -> None:
    """Be the agent of this node until SIGTERM; as root, in the node's own network.

    With --dry-run: exit status 1 when it would refuse to begin.
    """
    if context.invoked_subcommand is not None:
        return
    from podplane.machine.errors import MachineError

    try:
        _be_agent(context, kubeconfig, config, node_name, run_dir, dry_run)
    except MachineError as error:
        if not dry_run and os.geteuid() == 0:
            _last_words(kubeconfig, node_name, str(error))
        raise


def _be_agent(context: click.Context, kubeconfig: str, config: str, node_name: str, run_dir: str, dry_run: bool) -> None:
    from msgspec.structs import replace

    from podplane.machine import configuration, program

    found = configuration.read(config)
    if run_dir:
        configuration.check_run_dir(run_dir)
        found = replace(found, run_dir=run_dir)
    name = node_name or found.node_name or socket.gethostname().lower()
    configuration.check_node_name(name)
    access = access_of(kubeconfig)
    program.check_root()
    if not dry_run:
        program.run(access, name, found)
        return
    from podplane.machine import dry_run as module

    outcome = module.dry_run(access, name, found)
    click.echo("\n".join(outcome.lines))
    if outcome.is_refused:
        context.exit(1)


def _last_words(kubeconfig: str, node_name: str, message: str) -> None:
    """An event of the Node says why its agent does not start."""
    from podplane.machine.errors import MachineError
    from podplane.machine.node_events import last_words

    with contextlib.suppress(MachineError):  # without access nobody is told
        last_words(access_of(kubeconfig), node_name or socket.gethostname().lower(), f"the agent does not start: {message}")


def access_of(kubeconfig: str) -> Access:
    """The API of a kubeconfig, or of the pod that this runs in. MachineError without either."""
    from pathlib import Path

    from podplane.kubeapi.access import AccessError, from_kubeconfig, in_cluster
    from podplane.machine.errors import MachineError

    try:
        return from_kubeconfig(Path(kubeconfig)) if kubeconfig else in_cluster()
    except AccessError as error:
        raise MachineError(f"{error}{'' if kubeconfig else ': give --kubeconfig'}") from None


@agent.command()
def rbac() -> None:
    """Print what an agent may do in the API, as objects for `kubectl apply -f -`."""
    import yaml

    from podplane.machine.rbac import manifests

    click.echo(yaml.safe_dump_all(manifests(), sort_keys=False), nl=False)


@agent.command()
@click.option("--install", is_flag=True, help=f"Write it to {UNIT_FOLDER}.")
@click.pass_context
def unit(context: click.Context, install: bool) -> None:
    """Print the systemd unit of an agent with the options that stand before `unit`."""
    from pathlib import Path

    from podplane.machine import capabilities, configuration
    from podplane.machine.errors import MachineError
    from podplane.machine.reach import unreadable
    from podplane.machine.unit import NAME
    from podplane.machine.unit import unit as text_of

    given = context.parent.params if context.parent is not None else {}
    if not given["kubeconfig"]:
        raise MachineError("a unit needs credentials: podplane agent --kubeconfig FILE unit")
    found = configuration.read(given["config"])
    configuration.check_run_dir(given["run_dir"] or found.run_dir)
    if given["node_name"]:
        configuration.check_node_name(given["node_name"])
    words = [sys.executable, "-m", "podplane", "agent"]
    for name in ("kubeconfig", "config"):
        words += [f"--{name}", os.path.abspath(given[name])] if given[name] else []
    words += ["--node-name", given["node_name"]] if given["node_name"] else []
    words += ["--run-dir", given["run_dir"]] if given["run_dir"] else []
    needed = (*capabilities.NEEDED, *(capabilities.OF_NAME_SERVER if found.has_name_server else ()))
    try:
        text = text_of(words, given["run_dir"] or found.run_dir, found.cni_conf_dir, needed)
    except ValueError as error:
        raise MachineError(str(error)) from None
    if install:  # of a unit that can't start nobody says that it is ready to be enabled
        access_of(given["kubeconfig"])
    elif not Path(given["kubeconfig"]).exists():
        click.echo(f"warning: {given['kubeconfig']} is not there, and the agent does not start without it", err=True)
    own = (sys.executable, __file__, given["kubeconfig"], given["config"])
    for problem in unreadable(one for one in own if one and Path(one).exists()):
        click.echo(f"warning: the unit's agent has no rights over files of others, and can't read {problem}", err=True)
    if not install:
        click.echo(text, nl=False)
        return
    path = Path(UNIT_FOLDER, NAME)
    if found.cni_conf_dir:  # the unit can write to it, and not make it
        Path(found.cni_conf_dir).mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    click.echo(f"{path} is written: systemctl daemon-reload && systemctl enable --now {NAME}")


@agent.command()
@click.pass_context
def clean_kube_proxy(context: click.Context) -> None:
    """Remove what kube-proxy left in this machine's kernel, once it is gone: its tables of nftables, its chains of iptables."""
    from podplane.kernel import legacy_iptables
    from podplane.kernel.namespace import CurrentNamespace
    from podplane.kernel.nft.others import Tables
    from podplane.machine import kube_proxy
    from podplane.machine.beside import BY_ITSELF
    from podplane.machine.errors import MachineError
    from podplane.machine.program import check_root

    check_root()
    if why := kube_proxy.why_runs():
        raise MachineError(f"kube-proxy runs here, and would make its tables again: {why}; end it first")
    here = CurrentNamespace()
    with Tables(here) as tables:
        found = kube_proxy.left(tables, legacy_iptables.read(here), (name for _, name in socket.if_nameindex()))
        kube_proxy.remove(tables, found)
    for line in found.removable_words():
        click.echo(f"removed {line}")
    for line in found.unreached:
        click.echo(f"left {line}: {BY_ITSELF}", err=True)
    if not found:
        click.echo("nothing of kube-proxy's is here")
    if found.unreached:
        context.exit(1)


@agent.command()
@click.option("--detach", is_flag=True, help="Although pods are attached, which lose their network.")
@click.option("--prove", is_flag=True, help="Exit status 1 unless the machine is as it was before the agent's first start.")
@click.pass_context
def uninstall(context: click.Context, detach: bool, prove: bool) -> None:
    """Remove all that is podplane's from this machine, and compare it with what it was before the agent's first start."""
    from pathlib import Path

    from podplane.cni.networks import own_configuration, put_back
    from podplane.machine import capabilities, configuration
    from podplane.machine import uninstall as module
    from podplane.machine.alone import alone
    from podplane.machine.program import check_root, run_folder
    from podplane.machine.unit import NAME

    given = context.parent.params if context.parent is not None else {}
    found = configuration.read(given["config"]) if given["config"] else configuration.Configuration()
    files = [Path(UNIT_FOLDER, NAME)]
    if found.cni_conf_dir and (path := own_configuration(Path(found.cni_conf_dir))):
        files.append(path)
    configuration.check_run_dir(given["run_dir"] or found.run_dir)
    check_root()
    capabilities.prepare(found.sysctl_dir)
    with run_folder(given["run_dir"] or found.run_dir) as folder, alone():
        done = module.uninstall(
            folder, found.network(), files, detach=detach, plugin_path=found.plugin_path, folders=found.folders
        )
    if done.is_clean:
        with contextlib.suppress(OSError):  # something else is in it
            folder.rmdir()
    saved = put_back(Path(found.cni_conf_dir)) if done.is_clean and found.cni_conf_dir else []
    for line in (*done.lines, *saved):
        click.echo(line)
    click.echo("The CNI plugin, and the configuration that it came with: `podplane cni uninstall`.")
    if not done.is_clean or (prove and not done.is_same):
        context.exit(1)
