"""Tools for developers of podplane; nothing of them is installed."""
