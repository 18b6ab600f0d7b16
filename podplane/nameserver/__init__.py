"""The process that answers questions for names: sockets in, the cluster's objects, upstreams out. It serves one node, or all of a lab's."""
