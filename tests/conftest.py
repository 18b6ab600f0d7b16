"""Kernel tests run in a forked child that has entered user, network and mount namespaces of its own.

A user namespace can't be entered by a process with threads, and the runner's workers have some: so each test marked
`kernel` runs in a fork (which has one thread), and its outcome comes back through a pipe. No root is needed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None, max_examples=60)  # others in each run; a busy machine makes no law wrong
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile("suite")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a lab's start and each command would compile all of podplane anew
sys.dont_write_bytecode = False

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x0002_0000, 0x1000_0000, 0x4000_0000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18


class KernelTestFailed(AssertionError):
    """What went wrong in the child, with its traceback as text."""


def enter_namespaces() -> None:
    """Become root of a fresh user namespace with a network and a mount namespace; the process must have one thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare: user namespaces are needed for kernel tests")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount: private")


def run_in_child(test: Callable[[], Any]) -> tuple[str, str]:
    """(outcome, text) of `test` run in a fork: outcome is passed, failed or skipped."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        outcome = ("passed", "")
        try:
            enter_namespaces()
            test()
        except pytest.skip.Exception as skipped:
            outcome = ("skipped", str(skipped))
        except BaseException:
            outcome = ("failed", traceback.format_exc())
        with os.fdopen(write, "wb") as out:
            pickle.dump(outcome, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as source:
        data = source.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        return "failed", f"the child ended without a word, wait status {status}"
    result: tuple[str, str] = pickle.loads(data)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: to look for garbage in it, again and again, takes a third of the collection's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a module run in one worker, which starts the module's lab once; a module may name a larger group."""
    modules: set[pytest.Module] = set()
    for item in items:
        module = item.getparent(pytest.Module)
        if module is not None and module not in modules:
            modules.add(module)
            if module.get_closest_marker("xdist_group") is None:
                module.add_marker(pytest.mark.xdist_group(f"{module.path.parent.name}.{module.path.stem}"))
        if item.get_closest_marker("kernel") is not None and isinstance(item, pytest.Function):
            _refuse_fixtures(item)


def _refuse_fixtures(item: pytest.Function) -> None:
    """Fixtures run before the fork, in the machine's own namespaces: what one of a kernel test did there would be done to the machine."""
    for name, definitions in item._fixtureinfo.name2fixturedefs.items():
        if definitions[-1].baseid and definitions[-1].scope != "function":
            raise pytest.UsageError(f"{item.nodeid}: {name} would make it for all tests: have each test call a function")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests marked `kernel` in a child; leave all others to pytest."""
    if pyfuncitem.get_closest_marker("kernel") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    outcome, text = run_in_child(lambda: pyfuncitem.obj(**arguments))
    if outcome == "skipped":
        pytest.skip(text)
    if outcome == "failed":
        raise KernelTestFailed("\n" + text)
    return True
