"""What keeps an agent's process from doing its work."""

from __future__ import annotations


class MachineError(Exception):
    """One line for the user: what can't be done, why, and what to do."""
