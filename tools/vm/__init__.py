"""Tests on the kernel that people run: Debian's, in a virtual machine (`python -m tools.vm`)."""
