"""Host ports: ports of the node that lead to a port of one of its pods (`hostPort` of a container)."""
