"""Routes between nodes, one file a backend (mission A4)."""
