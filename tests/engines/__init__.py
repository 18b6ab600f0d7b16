"""Real container engines with podplane's plugin, on a machine that joins a lab."""
