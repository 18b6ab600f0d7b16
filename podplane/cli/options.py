"""Options that several commands have, and how they reach the running lab."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import click

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


def prepare_to_connect() -> None:
    """Import what `connect` needs, while something else is waited for."""
    importlib.import_module("podplane.kubeapi.http")


def connect(folder: Folder) -> Any:
    """A client of the running lab's API. LabError when it doesn't run."""
    from podplane.kubeapi.http import HttpClient

    return HttpClient(folder.access())
