"""What a user of the lab is told when it can't be done."""

from __future__ import annotations


class LabError(Exception):
    """One clear line: what is wrong, and what to do about it. The command line exits with status 2."""
