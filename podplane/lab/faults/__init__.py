"""Faults that a lab makes on request: what goes wrong in real clusters (`podplane fault`)."""
