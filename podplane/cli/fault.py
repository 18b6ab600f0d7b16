"""`podplane fault`: things that go wrong in a cluster, made to happen in a lab. Its options are the rows of `lab.faults.table`."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from podplane.cli.names import some
from podplane.cli.options import connect, lab_name
from podplane.cli.waiting import telling
from podplane.lab.errors import LabError
from podplane.lab.faults.arguments import FaultError
from podplane.lab.faults.table import CLEAR, FAULTS, Fault
from podplane.lab.folder import Folder

WAIT_SECONDS = 60.0
NO_VALUE = ""
FLAGS = {flag: row for row in FAULTS for flag in row.flags}


def _options(command: Any) -> Any:
    """An option for each fault; the value of one without its optional argument is NO_VALUE, and None when it is not there."""
    for fault in reversed(FAULTS):
        for flag, meaning in fault.flags.items():
            command = click.option(flag, _variable(flag), is_flag=True, help=meaning)(command)
        taken: dict[str, Any] = {"is_flag": True}
        if fault.argument:
            optional = {} if fault.needed else {"is_flag": False, "flag_value": NO_VALUE}
            taken = {"metavar": fault.argument if fault.needed else f"[{fault.argument}]", **optional}
        names = (fault.option, *(f"--{alias}" for alias in fault.aliases), _variable(fault.option))
        command = click.option(*names, default=None, help=fault.help, **taken)(command)
    return command


def _variable(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


@click.command()
@lab_name
@click.argument("node", default="")
@_options
@click.option("--clear", is_flag=True, help="Undo all active faults of NODE.")
def fault(folder: Folder, node: str, clear: bool, **given: Any) -> None:
    """Let something go wrong on NODE; without an option, list the faults and say which are active. `podplane fault clear` undoes those of
    all nodes."""
    chosen = [(row, given[_variable(row.option)]) for row in FAULTS]
    chosen = [(row, "" if value is True else str(value)) for row, value in chosen if value is not None and value is not False]
    if not node:
        raise LabError(_no_node(folder, chosen, clear))
    flags = [flag for flag in FLAGS if given[_variable(flag)]]
    if len(chosen) + clear + (node == CLEAR) > 1:
        raise LabError("one thing at a time: write one option")
    if flags and not chosen:
        raise LabError(f"{flags[0]} goes with {FLAGS[flags[0]].usage}")
    if node == CLEAR:
        _clear_all(folder)
    elif chosen:
        (row, value), *_ = chosen
        _make(folder, node, row, " ".join(filter(None, (value, *flags))))
    elif clear:
        _clear(folder, node)
    else:
        click.echo(_listing(node, _node(connect(folder), node)))


def _make(folder: Folder, node: str, row: Fault, argument: str) -> None:
    _check(row, argument)
    client = connect(folder)
    _node(client, node)
    click.echo(_ask(folder, client, node, row.name, argument))
    undo = f"; undo: `{folder.undo_faults(node)}`" if row.undo else ""
    commands = {name: folder.command(name) for name in ("check", "exec")}
    click.echo(f"See: {row.seen_at(argument).format(node=node, silence=_silence(folder), **commands)}{undo}.")


def _silence(folder: Folder) -> str:
    """Seconds from a node's fall silent to when it is NotReady: its last heartbeat may be one interval old by then."""
    from podplane.lab import spec

    settings = spec.load(folder.spec) or spec.LabSpec()
    grace = settings.node_monitor_grace_period
    return f"{grace - settings.beat_seconds:.0f} to {grace}"


def _clear(folder: Folder, node: str) -> None:
    """Undo the faults of a node."""
    client = connect(folder)
    if node in _without_node(folder, client.objects("nodes")):
        _create(client, node)
    _node(client, node)
    click.echo(_ask(folder, client, node, CLEAR, ""))


def _without_node(folder: Folder, nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The machines of a lab whose Node was deleted and that did not make it again: they have no power, or do not reach the API."""
    from podplane.lab import manifests, spec

    settings, known = spec.load(folder.spec), {one["metadata"]["name"] for one in nodes}
    numbers = range(1, settings.nodes + 1) if settings is not None else ()
    return [name for name in map(manifests.node_name, numbers) if name not in known]


def _create(client: Any, node: str) -> None:
    """A Node for a machine that has none: it has no other way to be told."""
    from podplane.kubeapi.errors import AlreadyExists

    with contextlib.suppress(AlreadyExists):
        client.create("nodes", "", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})


def _clear_all(folder: Folder) -> None:
    """Undo the faults of all nodes, one node after the other. LabError of the first one that can't; the others are done."""
    from podplane.lab.faults import messages

    client = connect(folder)
    nodes = client.objects("nodes")
    errors: list[LabError] = []
    deleted = _without_node(folder, nodes)
    active = [one["metadata"]["name"] for one in nodes if messages.active_of(one["metadata"].get("annotations") or {})]
    for name in (*active, *deleted):
        try:
            if name in deleted:
                _create(client, name)
            click.echo(_ask(folder, client, name, CLEAR, ""))
        except LabError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    if not active and not deleted:
        click.echo("No fault is active.")


def _no_node(folder: Folder, chosen: Sequence[tuple[Fault, str]], clear: bool) -> str:
    """What to write instead: a value that an option may have takes the word after it."""
    option = f" {chosen[0][0].usage}" if chosen else " --clear" if clear else ""
    taken = "".join(f"; {text!r} is the value of {row.option}" for row, text in chosen[:1] if text)
    return f"say on which node, before the option: {folder.command('fault', f'NODE{option}')}{taken}"


def _check(fault: Fault, argument: str) -> None:
    try:
        fault.refuse(argument)
    except FaultError as error:
        raise LabError(str(error)) from None


def _node(client: Any, name: str) -> dict[str, str]:
    """The annotations of a node. LabError when there is none of this name."""
    nodes = {one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in client.objects("nodes")}
    if name not in nodes:
        raise LabError(f"there is no node {name!r}: this lab has {some(list(nodes))}")
    annotations: dict[str, str] = nodes[name]
    return annotations


def _ask(folder: Folder, client: Any, node: str, name: str, argument: str) -> str:
    """Ask for a fault, and wait for the answer: what was done. LabError when it could not be done."""
    from podplane.lab.faults import messages

    request = messages.Request(secrets.token_hex(4), name, argument)
    client.patch("nodes", "", node, messages.request_body(request))

    def answer(nodes: list[dict[str, Any]]) -> messages.Answer | None:
        found: dict[str, Any] = next((n["metadata"] for n in nodes if n["metadata"]["name"] == node), {})
        return messages.answer_to(request.id, found.get("annotations", {}))

    last: messages.Answer | None = None
    tell = telling(lambda _: f"{node} to do so")
    for nodes in client.poll("nodes", "", lambda nodes: answer(nodes) is not None, WAIT_SECONDS, tell):
        last = answer(nodes)
    if last is None:
        raise LabError(f"{node} did not answer within {WAIT_SECONDS:.0f} s: `{folder.command('status')}`")
    if last.error:
        raise LabError(last.error)
    return last.done


def active_faults(folder: Folder, nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is active on these nodes, and how it is undone: a line a node."""
    from podplane.lab.faults import messages

    lines = []
    for node in nodes:
        name, annotations = node["metadata"]["name"], node["metadata"].get("annotations") or {}
        if active := messages.active_of(annotations):
            lines.append(f"{name}: {', '.join(map(str, active))} (`{folder.undo_faults(name)}` undoes it)")
    return lines


def _listing(node: str, annotations: dict[str, str]) -> str:
    """The faults as a table, and what is active."""
    from podplane.cli.tables import table
    from podplane.lab.faults import messages

    rows = [["FAULT", "WHAT HAPPENS", "WHAT --clear DOES"]]
    rows += [[row.usage, row.help, row.undo or "nothing: it is over at once"] for row in FAULTS]
    active = messages.active_of(annotations)
    lines = [f"{one} since {one.since}" + (f", until {one.until}" if one.until else "") for one in active]
    return f"{table(rows)}\n\nActive on {node}: {'; '.join(lines) or 'none'}."
