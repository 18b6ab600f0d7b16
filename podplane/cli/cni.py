"""`cni`: the plugin that container engines run, on the machine of a node."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from podplane.cni import engines
from podplane.cni import install as installation

Command = TypeVar("Command", bound=Callable[..., None])


class Folder(click.Path):
    """A path that is one: "" would be the folder that the command is run in."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`value` as `Path`."""
        if not os.fspath(value):
            self.fail("'' names no folder.", param, ctx)
        return super().convert(value, param, ctx)


def folders(command: Command) -> Command:
    """The options that say where container engines look."""
    path = Folder(path_type=Path)
    for option, default, what in (
        ("--conf-dir", installation.CONF_DIR, "Where they look for networks."),
        ("--bin-dir", installation.BIN_DIR, "Where engines look for plugins."),
    ):
        command = click.option(option, type=path, default=default, show_default=True, help=what)(command)
    return command


@click.group()
def cni() -> None:
    """The plugin by which container engines ask the agent of this machine (docs/cni.md)."""


@cni.command()
@folders
@click.option(
    "--programs-only", is_flag=True, help="Without the configuration: an agent with `cni_conf_dir` writes it when it is ready."
)
@click.option("--replace", is_flag=True, help="Move networks of others that come first aside; `uninstall` puts them back.")
@click.pass_context
def install(context: click.Context, bin_dir: Path, conf_dir: Path, programs_only: bool, replace: bool) -> None:
    """Put the plugin and its configuration where container engines find them; again after an upgrade."""
    if programs_only and context.get_parameter_source("conf_dir") is ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "--conf-dir has no effect with --programs-only: `cni_conf_dir` of the agent's configuration names the folder"
        )
    if programs_only and replace:
        raise click.UsageError(
            "--replace has no effect with --programs-only: `cni_replace` of the agent's configuration says it"
        )
    lines = installation.install(bin_dir, None if programs_only else conf_dir, replace=replace)
    for line in (*lines, *engines.notes(bin_dir, conf_dir)):
        click.echo(line)


@cni.command()
@folders
def uninstall(bin_dir: Path, conf_dir: Path) -> None:
    """Remove them. Without a plugin, pods neither start nor end: let those of this node end before."""
    from podplane.machine.alone import agent_here, how_to_stop

    for line in installation.uninstall(bin_dir, conf_dir):
        click.echo(line)
    if pid := agent_here():
        click.echo(
            f"warning: an agent runs here (process {pid}), and pods of this node hang in ContainerCreating and Terminating"
            f" without a plugin: `podplane cni install` puts it back; if the agent is to go, too, {how_to_stop(pid)}",
            err=True,
        )
