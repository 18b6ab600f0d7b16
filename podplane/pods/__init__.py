"""The plan of a pod's sandbox: veth pair, addresses, routes (mission F2, F3, P3)."""
