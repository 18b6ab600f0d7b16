"""Flags of a subcommand, as pflag reads them: --name=value, --name value, and for a switch --name alone.

`argparse` does that too, and costs every container the memory of its imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podplane.runtime import durations

Value = bool | int | float | str
TRUE, FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
"""As Go's `strconv.ParseBool`."""


LOGGING: Mapping[str, Value] = {
    "add_dir_header": False,
    "alsologtostderr": False,
    "log_backtrace_at": "",
    "log_dir": "",
    "log_file": "",
    "log_file_max_size": "",
    "logtostderr": True,
    "one_output": False,
    "skip_headers": False,
    "skip_log_headers": False,
    "stderrthreshold": "",
    "v": "",
    "vmodule": "",
}
"""Flags of klog, which tests give to any subcommand. There is one level of logging here, so they change nothing, which is said."""


class UsageError(Exception):
    """The command line can't be understood; one line that says why."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The values of all flags of a subcommand, the words that are none, and the flags of logging that were given."""

    values: Mapping[str, Value]
    words: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return bool(self.values[name])

    def number(self, name: str) -> int:
        """The value of a flag that is an integer."""
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def seconds(self, name: str) -> float:
        """The value of a flag that is a duration."""
        value = self.values[name]
        assert isinstance(value, float)
        return value

    def text(self, name: str) -> str:
        """The value of a flag that is a text."""
        return str(self.values[name])


def parse(
    words: Sequence[str], defaults: Mapping[str, Value], arguments: int = 0, short: Mapping[str, str] | None = None
) -> Flags:
    """What the words say; a flag's default tells its type (a float is a duration), `short` has letters for some of them (-n 1, -n1,
    -n=1). UsageError when they say something else."""
    values, rest, left = dict(defaults), [], list(words)
    known_flags, logging = {**LOGGING, **defaults}, []
    short = {"v": "v", **(short or {})}
    while left:
        word = _long(left.pop(0), short)
        if word == "--":
            rest += left
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        name, equals, text = word[2:].partition("=")
        if not word.startswith("--") or name not in known_flags:
            known = ", ".join(f"--{flag}" for flag in defaults) or "none"
            raise UsageError(f"unknown flag: {word.partition('=')[0]}: known are {known}")
        if not equals:
            text = "true" if isinstance(known_flags[name], bool) else _following(word, left)
        value = _value(name, text, known_flags[name])
        if name in defaults:
            values[name] = value
        else:
            logging.append(f"--{name}")
    if len(rest) != arguments:
        raise UsageError(f"{len(rest)} arguments ({' '.join(rest)}), it takes {arguments}")
    return Flags(values, tuple(rest), tuple(logging))


def _long(word: str, short: Mapping[str, str]) -> str:
    """A flag of one letter by its name."""
    name = short.get(word[1:2]) if word.startswith("-") else None
    if name is None:
        return word
    value = word[2:].removeprefix("=")
    return f"--{name}={value}" if word[2:] else f"--{name}"


def _following(flag: str, left: list[str]) -> str:
    if not left:
        raise UsageError(f"flag needs an argument: {flag}")
    return left.pop(0)


def _value(name: str, text: str, default: Value) -> Value:
    try:
        if isinstance(default, bool):
            return _switch(text)
        if isinstance(default, int):
            return int(text)
        return durations.parse(text) if isinstance(default, float) else text
    except ValueError as error:
        why = "is not an integer" if type(default) is int else str(error)
        raise UsageError(f'invalid argument "{text}" for --{name}: {why}') from None


def _switch(text: str) -> bool:
    if text not in TRUE and text not in FALSE:
        raise ValueError("is not true or false")
    return text in TRUE
