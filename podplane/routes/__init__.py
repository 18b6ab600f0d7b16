"""Routes between nodes: one file a backend, one row each in `table.BACKENDS`."""
