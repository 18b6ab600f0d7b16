"""Options that several commands have, and how they reach the running lab."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from podplane.lab.folder import DEFAULT_NAME, Folder

Command = Callable[..., Any]


def lab_name(command: Command) -> Command:
    """`--name`: the command gets the lab's folder as its first argument."""

    @click.option("--name", default=DEFAULT_NAME, show_default=True, envvar="PODPLANE_LAB", help="Which lab.")
    @functools.wraps(command)
    def with_folder(*arguments: Any, name: str, **options: Any) -> Any:
        return command(Folder.named(name), *arguments, **options)

    return with_folder


def namespace(command: Command) -> Command:
    """`--namespace`."""
    option = click.option("-n", "--namespace", default="default", show_default=True, help="Which Kubernetes namespace.")
    return option(command)


def pod_place(pod: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a pod as users write it, with the `--namespace` of this command. LabError when these contradict each other."""
    from podplane.cli.names import place
    from podplane.lab.errors import LabError

    found = place(pod, namespace)
    is_given = click.get_current_context().get_parameter_source("namespace") is not ParameterSource.DEFAULT
    if is_given and found[0] != namespace:
        raise LabError(f"{pod!r} is of namespace {found[0]}, and --namespace says {namespace}: leave one of them out")
    return found


def get_pod(client: Any, namespace: str, name: str) -> Any:
    """A pod. LabError that says where there is one of that name when this one is not there."""
    from podplane.kubeapi.errors import NotFound
    from podplane.lab.errors import LabError

    try:
        return client.get("pods", namespace, name)
    except NotFound:
        found = [one["metadata"]["namespace"] for one in client.objects("pods", fieldSelector=f"metadata.name={name}")]
        elsewhere = f": there is {', '.join(f'{one}/{name}' for one in found)}" if found else ""
        raise LabError(f"there is no pod {name} in namespace {namespace}{elsewhere}") from None


def prepare_to_connect() -> None:
    """Import what `connect` needs, while something else is waited for."""
    importlib.import_module("podplane.kubeapi.http")


def connect(folder: Folder) -> Any:
    """A client of the running lab's API. LabError when it doesn't run."""
    from podplane.kubeapi.http import HttpClient

    return HttpClient(folder.access())
