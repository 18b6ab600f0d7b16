"""A small kernel in memory, behind the same door as the real one: for tests without namespaces, and for golden files."""
