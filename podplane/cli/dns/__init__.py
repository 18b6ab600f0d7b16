"""`podplane dns`: the cluster's names, and the servers that answer for them."""
