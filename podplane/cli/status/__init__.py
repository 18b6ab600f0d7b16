"""`podplane status`."""
