"""What a layer needs to run Python: the interpreter that runs this, its standard library, shared libraries."""

from __future__ import annotations

import importlib.util
import marshal
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.image.layer import Layer

LEFT_OUT = {
    "__pycache__", "curses", "dbm", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "test", "tests", "tkinter", "turtledemo", "unittest", "venv", "xmlrpc",
}  # fmt: skip
"""Folders of the standard library that nothing in the image imports."""
LINKED = "config-"
"""The beginning of the name of a folder with what C programs are linked with."""
LEFT_OUT_MODULES = re.compile(
    r"(_ctypes_test|_curses\w*|_dbm|_gdbm|_test\w+|_tkinter|_xx\w+|nis|ossaudiodev|readline|xx\w+)\..*"
)
"""Likewise extension modules."""
LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")
UNUSED = (".pyc", ".pyi", ".c", ".h", ".pyx", ".pxd")
"""Suffixes of files that are not needed at run time; what is compiled here is compiled anew."""
UNCHECKED = 0b01
"""A compiled module that is loaded without a look at its source (PEP 552)."""


def add(layer: Layer) -> Path:
    """Add interpreter and standard library; where the interpreter is."""
    program = Path(sys.executable).resolve()
    layer.copy(program)
    for source in sorted(_standard_library()):
        copy(layer, source)
    return program


def _standard_library() -> Iterator[Path]:
    for top in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if name not in LEFT_OUT and not name.startswith(LINKED)]
            yield from (Path(folder, name) for name in files if not LEFT_OUT_MODULES.fullmatch(name))


def copy(layer: Layer, source: Path) -> None:
    """Copy a file of this machine, if Python needs it at run time, and what is compiled of it."""
    if source.suffix in UNUSED:
        return
    layer.copy(source)
    if source.suffix == ".py":
        compile_(layer, str(source), source.read_bytes())


def compile_(layer: Layer, path: str, source: bytes) -> None:
    """Add what Python compiles of a module at this path of the image: nobody can write it there later. What is no Python has none."""
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return
    head = importlib.util.MAGIC_NUMBER + UNCHECKED.to_bytes(4, "little") + importlib.util.source_hash(source)
    layer.put(importlib.util.cache_from_source(path), head + marshal.dumps(code))


def add_libraries(layer: Layer, own: Iterable[Path]) -> None:
    """Add the shared libraries of this machine that these files, and the interpreter's, are linked with."""
    programs = [*map(Path, layer.files()), *own]
    words = [str(one) for one in programs if one.is_file() and _is_elf(one)]
    done = subprocess.run(["ldd", *words], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    shipped = {str(one) for one in programs}
    for library in sorted({os.path.normpath(one) for one in LIBRARY.findall(done.stdout)} - shipped):
        layer.copy(Path(library))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
