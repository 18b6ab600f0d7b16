"""Phases of a pod (core/v1 PodPhase)."""

ENDED = ("Succeeded", "Failed")
"""Those of a pod whose containers have all ended for good."""
