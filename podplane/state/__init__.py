"""Desired state: frozen values of what the kernel shall hold, fragments of them, and the difference of two states."""
