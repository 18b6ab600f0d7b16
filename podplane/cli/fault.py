"""`podplane fault`: things that go wrong in a cluster, made to happen in a lab. Its options are the rows of `lab.faults.table`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from podplane.cli.names import some
from podplane.cli.options import connect, lab_name
from podplane.cli.waiting import telling
from podplane.lab.errors import LabError
from podplane.lab.faults.table import BY_NAME, CLEAR, FAULTS, Fault, FaultError
from podplane.lab.folder import Folder

WAIT_SECONDS = 60.0
NO_VALUE = ""


def _options(command: Any) -> Any:
    """An option for each fault; the value of one without its optional argument is NO_VALUE, and None when it is not there."""
    for fault in reversed(FAULTS):
        metavar = f"[{fault.argument}]"
        taken = {"is_flag": False, "flag_value": NO_VALUE, "metavar": metavar} if fault.argument else {"is_flag": True}
        command = click.option(fault.option, fault.name.replace("-", "_"), default=None, help=fault.help, **taken)(command)
    return command


@click.command()
@lab_name
@click.argument("node", default="")
@_options
@click.option("--clear", is_flag=True, help="Undo all active faults of NODE.")
def fault(folder: Folder, node: str, clear: bool, **given: Any) -> None:
    """Let something go wrong on NODE; without an option, list the faults and say which are active."""
    wanted = [(row, given[row.name.replace("-", "_")]) for row in FAULTS]
    chosen = [(row, "" if value is True else str(value)) for row, value in wanted if value is not None and value is not False]
    if not node:
        raise LabError(_no_node(folder, chosen, clear))
    if len(chosen) + clear > 1:
        raise LabError("one thing at a time: write one option")
    for row, argument in chosen:
        _check(row, argument)
    client = connect(folder)
    found = _node(client, node)
    if not chosen and not clear:
        click.echo(_listing(node, found))
        return
    name, argument = (CLEAR, "") if clear else (chosen[0][0].name, chosen[0][1])
    click.echo(_ask(folder, client, node, name, argument))
    if (made := BY_NAME.get(name)) is not None:
        undo = f"; undo: `{folder.undo_faults(node)}`" if made.undo else ""
        seen = made.look_at.format(node=node, check=folder.command("check"), exec=folder.command("exec"))
        click.echo(f"See: {seen}{undo}.")


def _no_node(folder: Folder, chosen: Sequence[tuple[Fault, str]], clear: bool) -> str:
    """What to write instead: a value that an option may have takes the word after it."""
    option = f" {chosen[0][0].usage}" if chosen else " --clear" if clear else ""
    taken = "".join(f"; {text!r} is the value of {row.option}" for row, text in chosen[:1] if text)
    return f"say on which node, before the option: {folder.command('fault', f'NODE{option}')}{taken}"


def _check(fault: Fault, argument: str) -> None:
    try:
        if argument:
            fault.check(argument)
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
            lines.append(f"{name}: {', '.join(one.fault for one in active)} (`{folder.undo_faults(name)}` undoes it)")
    return lines


def _listing(node: str, annotations: dict[str, str]) -> str:
    """The faults as a table, and what is active."""
    from podplane.cli.tables import table
    from podplane.lab.faults import messages

    rows = [["FAULT", "WHAT HAPPENS", "WHAT --clear DOES"]]
    rows += [[row.usage, row.help, row.undo or "nothing: it is over at once"] for row in FAULTS]
    active = messages.active_of(annotations)
    lines = [f"{one.fault} since {one.since}" + (f", until {one.until}" if one.until else "") for one in active]
    return f"{table(rows)}\n\nActive on {node}: {'; '.join(lines) or 'none'}."
