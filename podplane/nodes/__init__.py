"""The plan of a node: bridge, sysctls, masquerade (mission F2, P5, A1)."""
