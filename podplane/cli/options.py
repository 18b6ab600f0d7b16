"""Options that several commands have, and how they reach the running lab."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from podplane.cli.where import OfKubeconfig, Where
from podplane.lab.errors import LabError
from podplane.lab.folder import DEFAULT_NAME, Folder

Command = Callable[..., Any]
VIEWER_SECONDS = 600
"""The least that the API gives a token (TokenRequest, expirationSeconds)."""
FORBIDDEN = 403


def lab_name(command: Command) -> Command:
    """`--name`: the command gets the lab's folder as its first argument."""

    @click.option("--name", default=DEFAULT_NAME, show_default=True, envvar="PODPLANE_LAB", help="Which lab.")
    @functools.wraps(command)
    def with_folder(*arguments: Any, name: str, **options: Any) -> Any:
        return command(Folder.named(name), *arguments, **options)

    return with_folder


def kubeconfig(command: Command) -> Command:
    """`--kubeconfig` and `--context`: the command gets the cluster as its first argument."""

    @_kubeconfig_options("Of the cluster.  [default: as of kubectl]")
    @functools.wraps(command)
    def with_cluster(*arguments: Any, kubeconfig: str, kube_context: str, **options: Any) -> Any:
        return command(OfKubeconfig(kubeconfig, kube_context), *arguments, **options)

    return with_cluster


def lab_or_cluster(command: Command) -> Command:
    """`--name`, or `--kubeconfig` and `--context`: the command gets the lab's folder or the cluster as its first argument."""

    @click.option("--name", default=DEFAULT_NAME, show_default=True, envvar="PODPLANE_LAB", help="Which lab.")
    @_kubeconfig_options("Of a cluster, instead of a lab.")
    @functools.wraps(command)
    def with_where(*arguments: Any, name: str, kubeconfig: str, kube_context: str, **options: Any) -> Any:
        if not kubeconfig and not kube_context:
            return command(Folder.named(name), *arguments, **options)
        if click.get_current_context().get_parameter_source("name") is ParameterSource.COMMANDLINE:
            raise LabError("--name is of a lab and --kubeconfig of a cluster: leave one of them out")
        return command(OfKubeconfig(kubeconfig, kube_context), *arguments, **options)

    return with_where


def _kubeconfig_options(help_: str) -> Callable[[Command], Command]:
    def decorated(command: Command) -> Command:
        context = click.option("--context", "kube_context", default="", help="Of the kubeconfig.  [default: its current one]")
        return click.option("--kubeconfig", default="", metavar="FILE", help=help_)(context(command))

    return decorated


def namespace(command: Command) -> Command:
    """`--namespace`."""
    option = click.option("-n", "--namespace", default="default", show_default=True, help="Which Kubernetes namespace.")
    return option(command)


def pod_place(pod: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a pod as users write it, with the `--namespace` of this command. LabError when these contradict each other."""
    from podplane.cli.names import place

    found = place(pod, namespace)
    is_given = click.get_current_context().get_parameter_source("namespace") is not ParameterSource.DEFAULT
    if is_given and found[0] != namespace:
        raise LabError(f"{pod!r} is of namespace {found[0]}, and --namespace says {namespace}: leave one of them out")
    return found


def get_pod(client: Any, namespace: str, name: str) -> Any:
    """A pod. LabError that says where there is one of that name when this one is not there."""
    from podplane.kubeapi.errors import NotFound

    try:
        return client.get("pods", namespace, name)
    except NotFound:
        found = [one["metadata"]["namespace"] for one in client.objects("pods", fieldSelector=f"metadata.name={name}")]
        elsewhere = f": there is {', '.join(f'{one}/{name}' for one in found)}" if found else ""
        raise LabError(f"there is no pod {name} in namespace {namespace}{elsewhere}") from None


def prepare_to_connect() -> None:
    """Import what `connect` needs, while something else is waited for."""
    importlib.import_module("podplane.kubeapi.http")


def connect(where: Where) -> Any:
    """A client of the API of a running lab or of a cluster. LabError when the lab doesn't run, or the kubeconfig is none."""
    client = connect_only(where)
    show_who_asks(where, client)
    return client


def connect_only(where: Where) -> Any:
    """The same, and nothing is asked yet: nodes of a cluster tell this client nothing of themselves."""
    from podplane.kubeapi.http import HttpClient

    return HttpClient(where.access())


def show_who_asks(where: Where, client: Any) -> None:
    """Have a client show nodes a new token for readers, where it is not of a lab: the API of a lab shows them one of its own."""
    if isinstance(where, OfKubeconfig):
        client.viewer = _viewer(client)


def showing_who_asks(where: Where, client: Any) -> Callable[[], None]:
    """For a command that goes on: called again and again, it renews in time what `connect` has nodes shown."""
    renewed = [time.monotonic()]

    def renew() -> None:
        if time.monotonic() - renewed[0] > VIEWER_SECONDS / 2:
            renewed[0] = time.monotonic()
            show_who_asks(where, client)

    return renew


def _viewer(client: Any) -> str:
    """A token for readers of nodes; "" where the cluster has no account of theirs."""
    from podplane.kubeapi.errors import ApiError, NotFound
    from podplane.model.config import VIEWER

    try:
        token: str = client.viewer_token(VIEWER_SECONDS)
    except NotFound:
        return ""
    except ApiError as error:
        if error.code != FORBIDDEN:
            raise
        click.echo(
            f"Agents will tell nothing: the token for readers is refused (create serviceaccounts/token, {VIEWER}).", err=True
        )
        return ""
    return token
