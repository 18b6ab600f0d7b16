"""`podplane cluster`."""
