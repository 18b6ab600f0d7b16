"""What the bench of CNI plugins times: whole processes, one after the other in a chain, with the result of one for the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import cni, cni_caller

SCRIPT = """#!/bin/sh
cat > "$0.$CNI_COMMAND.stdin"
echo "$0" >> "$LOG"
echo "{\\"by\\": \\"$0\\"}"
"""


@pytest.fixture
def plugins(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("first", "second")]
    for path in paths:
        path.write_text(SCRIPT)
        path.chmod(0o755)
    return paths


def chain(plugins: list[Path], verb: str, **more: Any) -> dict[str, Any]:
    env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c", "LOG": str(plugins[0].parent / "log"), "PATH": "/usr/bin:/bin"}
    return {"env": env, "calls": [[str(path), {"name": path.name}] for path in plugins], **more}


def test_the_result_of_one_is_the_next_ones(plugins: list[Path]) -> None:
    took, result = cni_caller.run(chain(plugins, "ADD", passes=True))
    first, second = plugins
    assert took > 0 and result == {"by": str(second)}
    assert json.loads(Path(f"{first}.ADD.stdin").read_text()) == {"name": "first"}
    assert json.loads(Path(f"{second}.ADD.stdin").read_text()) == {"name": "second", "prevResult": {"by": str(first)}}


def test_a_deletion_gives_all_the_result_of_the_chain(plugins: list[Path]) -> None:
    _, result = cni_caller.run(chain(plugins, "DEL", passes=False, result={"a": 1}))
    assert result == {"a": 1}
    assert json.loads(Path(f"{plugins[1]}.DEL.stdin").read_text())["prevResult"] == {"a": 1}
    assert (plugins[0].parent / "log").read_text().split() == [str(path) for path in plugins]


def test_a_plugin_that_fails_is_no_sample(plugins: list[Path]) -> None:
    plugins[0].write_text("#!/bin/sh\necho oh; exit 1\n")
    with pytest.raises(RuntimeError, match="oh"):
        cni_caller.run(chain(plugins, "ADD", passes=True))


def test_rows_compare_medians_and_the_slowest_of_a_hundred() -> None:
    ours, theirs = [float(n) for n in range(1, 101)], [float(n) * 4 for n in range(1, 101)]
    alone, half, slowest = cni._compared("ADD", "theirs", ours, theirs, 0.33, 0.5)
    assert (alone.value, half.value, half.verdict, slowest.value, slowest.verdict) == (50.5, 0.25, "yes", 0.25, "yes")
    (alone,) = cni._compared("ADD", "theirs", ours, None, 0.33)
    assert alone.verdict == ""
