"""`podplane`: the commands of a lab. A command's module is imported when the command is called: `--help` must be instant.

Exit status: 0 done, 1 a promise is broken or a command in a pod failed, 2 it couldn't be done (one line says what and what to do).
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from podplane import __version__
from podplane.cli import characters
from podplane.cli.lazy import Lazy

COMMANDS = {
    "up": ("podplane.cli.labs", "up", "Start a lab."),
    "down": ("podplane.cli.labs", "down", "Stop a lab; its pods and addresses come back with the next up."),
    "status": (
        "podplane.cli.status.command",
        "status",
        "Say whether a lab runs, and what is in it; or how a node's agent does.",
    ),
    "run": ("podplane.cli.pods", "run", "Run a pod, or several."),
    "get": ("podplane.cli.pods", "get", "List nodes or pods."),
    "delete": ("podplane.cli.pods", "delete", "Delete pods."),
    "exec": ("podplane.cli.exec", "execute", "Run a command in a pod."),
    "kubeconfig": ("podplane.cli.kubeconfig", "kubeconfig", "Print the path of the lab's kubeconfig, or merge it into yours."),
    "services": (
        "podplane.cli.services.command",
        "services",
        "Show Services: frontends, endpoints, traffic, and what is wrong.",
    ),
    "dns": ("podplane.cli.dns.group", "dns", "The cluster's names: what a pod gets for one, and why."),
    "policy": ("podplane.cli.policy.group", "policy", "NetworkPolicies: who may talk to whom, and which rule decides it."),
    "publish": ("podplane.cli.publish", "publish", "Bring Services to the localhost of this machine."),
    "routes": ("podplane.cli.routes", "routes", "Show which routes lead to pods of other nodes, and through which tunnels."),
    "backend": ("podplane.cli.backend", "backend", "How packets get from node to node, and another way for all nodes."),
    "fault": ("podplane.cli.fault", "fault", "Let something go wrong on a node, and undo it."),
    "cluster": ("podplane.cli.cluster.group", "cluster", "podplane on a real cluster: how it does, and what is wrong."),
    "agent": ("podplane.cli.agent", "agent", "Be the agent of this machine as a node of a cluster."),
    "controllers": (
        "podplane.cli.controllers",
        "controllers",
        "Give addresses to load balancers and blocks to nodes of a cluster.",
    ),
    "cni": ("podplane.cli.cni", "cni", "Install the plugin by which container engines ask the agent."),
    "check": ("podplane.cli.check.command", "check", "Prove the promises of the network model with packets."),
}
"""Name → module, function, one line of help."""


@click.command(cls=Lazy, rows=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="podplane")
def podplane() -> None:
    """A complete Kubernetes cluster network in a lab on this machine: nodes, pods, addresses, routes, real packets."""


def main(arguments: list[str] | None = None) -> None:
    """The entry point: every known failure is one line and exit status 2."""
    characters.prepare()
    try:
        arguments = characters.arguments(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        _fail(str(error), 2)
    try:
        code = podplane.main(arguments, prog_name="podplane", standalone_mode=False)
        _leave(code if isinstance(code, int) else 0)  # of `Context.exit` (click, BaseCommand.main)
    except SystemExit as done:
        _leave(done.code if isinstance(done.code, int) else 1)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        _leave(2)
    except BrokenPipeError:
        os._exit(0)  # who read our output has seen enough
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        _fail(f"{error.filename or 'this machine'}: {error.strerror or error}", 2)
    except Exception as error:
        if not _known(error):
            raise
        _fail(str(error), 2)


def _leave(code: int) -> NoReturn:
    """End at once: taking the interpreter down in good order is a tenth of a command's time, and nothing waits for it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _known(error: Exception) -> bool:
    """Is its text for users? (By name, so that nothing is imported for it.)"""
    return any(
        kind.__name__ in ("LabError", "ClusterError", "ApiError", "MachineError", "InstallError")
        for kind in type(error).__mro__
    )


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"podplane: {message}", err=True)
    _leave(code)
