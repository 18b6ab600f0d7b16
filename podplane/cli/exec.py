"""`exec`: a command in a pod, with this terminal's or this pipe's input and output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

import click

from podplane.cli.options import connect, get_pod, lab_name, namespace, pod_place
from podplane.lab.folder import Folder

CHUNK_BYTES = 32 * 1024


class WithCommand(click.Command):
    """POD, then a command of its own words: options stand before POD, or up to a `--` before the command, as kubectl has it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options after POD are ours only when a `--` says where they end: `exec web ls -l` has none."""
        ctx.allow_interspersed_args = "--" in args
        if ctx.allow_interspersed_args:
            ctx.allow_interspersed_args = self._is_pod_alone(ctx, args[: args.index("--")])
        rest = super().parse_args(ctx, args)
        first = (ctx.params.get("command") or ("",))[0]
        if first.startswith("-") and first != "--" and not ctx.allow_interspersed_args:
            pod = ctx.params["pod"]
            hint = f"put `--` between {pod} and the command, or options before {pod}"
            raise click.UsageError(f"{first!r} is no command, and none of the options of exec: {hint}", ctx)
        return rest

    def _is_pod_alone(self, ctx: click.Context, args: list[str]) -> bool:
        """Is there no word of a command yet, and no option but ours?"""
        try:
            found = self.make_parser(ctx).parse_args(list(args))[0]
        except click.UsageError:
            return False
        return not isinstance(found.get("command"), tuple)


@click.command(cls=WithCommand, context_settings={"allow_interspersed_args": False})
@lab_name
@namespace
@click.option("-c", "--container", default="", help="Which container; otherwise the first.")
@click.option("-i", "--stdin", "interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", "terminal", is_flag=True, help="Give the command a terminal.")
@click.argument("pod", metavar="[NAMESPACE/]POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    folder: Folder, namespace: str, container: str, interactive: bool, terminal: bool, pod: str, command: tuple[str, ...]
) -> None:
    """Run COMMAND, any command of this machine, in a pod: its network, its processes, its name. Its exit status is ours."""
    from podplane.kubeapi.exec import ExecSession
    from podplane.kubeapi.requests import execute as request

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("give a command to run")
    namespace, pod = pod_place(pod, namespace)
    client = connect(folder)
    found = get_pod(client, namespace, pod)
    wants_tty = terminal and sys.stdin.isatty()
    if not container:  # the API server picks none of several
        container = found["spec"]["containers"][0]["name"]
    call = request(client.token, namespace, pod, words, container=container, stdin=interactive, tty=wants_tty)
    session = ExecSession(client.access, call)
    with _raw_terminal(session) if wants_tty else contextlib.nullcontext():
        code, error = talk(session, sys.stdin.fileno() if interactive else -1)
    if error:
        click.echo(f"podplane: {error}", err=True)
    sys.exit(code)


def talk(session: Any, stdin: int) -> tuple[int, str]:
    """Carry input and output until the command ends: its exit code, or why it couldn't be started."""
    from podplane.kubeapi import channels as ch

    outputs = {ch.STDOUT: sys.stdout.fileno(), ch.STDERR: sys.stderr.fileno()}
    with selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        file = stdin >= 0 and not _register(selector, stdin)
        while not session.over:
            ready = {key.fd for key, _ in selector.select(0 if file or session.has_pending else None)}
            if file and session.fileno() not in ready:  # what comes is read first: nobody waits for the other for ever
                file = _forward_once(session, stdin)
            elif stdin in ready and not _forward_once(session, stdin):
                selector.unregister(stdin)
            if not session.has_pending and session.fileno() not in ready:
                continue
            for channel, data in session.receive_ready():
                if channel == ch.ERROR:
                    return ch.exit_code(data)
                _write(outputs[channel], data)
    return 1, "the connection to the pod was lost"


def _register(selector: selectors.BaseSelector, stdin: int) -> bool:
    """False for what can't be waited for (a regular file)."""
    try:
        selector.register(stdin, selectors.EVENT_READ)
    except (PermissionError, ValueError):
        return False
    return True


def _forward_once(session: Any, stdin: int) -> bool:
    data = os.read(stdin, CHUNK_BYTES)
    if data:
        session.send(data)
    else:
        session.close_input()
    return bool(data)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextlib.contextmanager
def _raw_terminal(session: Any) -> Iterator[None]:
    """Keys go to the pod as they are pressed; the size of the terminal goes along whenever it changes."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def resize(*_: object) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            session.resize(size.columns, size.lines)

    former = signal.signal(signal.SIGWINCH, resize)
    resize()
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, former)
