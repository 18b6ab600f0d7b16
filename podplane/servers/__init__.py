"""Sockets of a node that answer."""
