"""What a user of a real cluster is told when it can't be done."""

from __future__ import annotations


class ClusterError(Exception):
    """One clear line: what is wrong, and what to do about it. The command line exits with status 2."""
