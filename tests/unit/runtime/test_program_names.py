"""What a lab knows of the built-in programs is what the zygote has."""

from __future__ import annotations

import subprocess
import sys

from podplane.runtime.program_names import NAMES
from podplane.runtime.programs import PROGRAMS


def test_each_name_has_a_program() -> None:
    assert PROGRAMS.keys() == NAMES


def test_a_lab_imports_no_program() -> None:
    code = "import sys; import podplane.runtime.kubelet; print(*sys.modules)"
    words = [sys.executable, "-c", code]
    found = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert "podplane.runtime.images" in found
    assert not found & {
        "podplane.runtime.programs",
        "podplane.runtime.agnhost",
        "podplane.runtime.echo",
        "podplane.runtime.probe",
    }
