"""What a user of the lab is told when it can't be done."""

from __future__ import annotations


class LabError(Exception):
    """One clear line: what is wrong, and what to do about it. The command line exits with status 2."""


def lacks_processes(error: Exception) -> bool:
    """Is it that this user can have no more processes or threads (fork(2), EAGAIN; RuntimeError of `threading`)?"""
    return isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and "can't start new thread" in str(error))


def no_processes(what: str) -> LabError:
    """What to say then."""
    return LabError(f"{what} can't be had: raise this user's limit of processes (ulimit -u)")
