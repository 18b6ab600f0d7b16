"""podplane: a complete Kubernetes cluster network in Python, as a lab on one machine or on a real cluster."""

__version__ = "0.1.0"
