"""`podplane check`: of a lab, or of the cluster of a kubeconfig; gather members, probe, judge, report."""

from __future__ import annotations

import sys
import time

import click
from click.core import ParameterSource

from podplane import __version__
from podplane.cli.check import examination, promises, report, sessions
from podplane.cli.check.cluster import command as cluster
from podplane.cli.check.in_lab import InLab
from podplane.cli.check.parties import NAMESPACE, gathered
from podplane.cli.check.patience import take
from podplane.cli.fault import active_faults
from podplane.cli.options import connect, connect_only, lab_or_cluster
from podplane.cli.where import Where
from podplane.lab import preflight, spec
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder

IMAGE = f"localhost/podplane:{__version__}"
OF_A_CLUSTER = ("deep", "namespace", "image")
"""Options that say nothing of a lab."""


@click.command()
@lab_or_cluster
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--all", "everything", is_flag=True, help="Every ordered pair of pods, however many there are.")
@click.option(
    "--patience",
    type=click.FloatRange(1, 1000),
    default=1,
    help="On a machine that is so many times slower than usual: what does not pass is waited for so many times as long.",
)
@click.option("--deep", is_flag=True, help="On a cluster: every pair of pods and nodes, and further kinds of policies.")
@click.option(
    "--namespace", default="", help="On a cluster: a namespace that is there, instead of one that is made and deleted."
)
@click.option("--image", default=IMAGE, show_default=True, help="On a cluster: podplane's image, as its nodes know it.")
def check(
    where: Where,
    as_json: bool,
    everything: bool,
    patience: float,
    deep: bool,
    namespace: str,
    image: str,
) -> None:
    """Prove the promises of the Kubernetes network model with packets between all pods, nodes and the world outside: of a lab, or by pods
    of its own of the cluster of a kubeconfig, whichever network that has.

    Exit status 0: all are kept; 1: one is broken; 2: it could not be found out.
    """
    take(patience)
    preflight.raise_file_limit()
    began = time.monotonic()
    if isinstance(where, Folder):
        _refuse_without_effect()
        result = _lab(where, everything)
    else:
        result = cluster.examined(connect_only(where), cluster.Wanted(namespace, image, deep, everything))
    result.seconds = time.monotonic() - began
    click.echo(report.as_json(result) if as_json else report.as_text(result, sys.stdout.isatty()))
    sys.exit(0 if result.ok else 1)


def _refuse_without_effect() -> None:
    """LabError for options that would say nothing of a lab."""
    source = click.get_current_context().get_parameter_source
    for name in OF_A_CLUSTER:
        if source(name) is ParameterSource.COMMANDLINE:
            raise LabError(f"--{name} is of a check of a cluster: give --kubeconfig FILE, or leave it out")


def _lab(folder: Folder, everything: bool) -> report.Result:
    client = connect(folder)
    settings = spec.load(folder.spec)
    if settings is None:
        raise LabError(f"lab {folder.name!r} has no settings")
    for line in active_faults(folder, client.objects("nodes")):
        click.echo(f"A fault is active on {line}.", err=True)
    with (
        folder.checking(),
        gathered(client, folder.undo_faults) as who,
        sessions.probers(client, who.members) as (found, refused),
    ):
        count = sum(m.kind == "pod" and m.namespace != NAMESPACE for m in who.members)
        everything = everything or count <= promises.EVERY_PAIR_UP_TO
        result = examination.examine(who, found, refused, everything, InLab(client, settings))
    result.left_out = [*(f"pod {name} ({why})" for name, why in who.left_out.items()), *result.left_out]
    return result
