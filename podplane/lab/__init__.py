"""The lab: N nodes as network namespaces of one machine, with an underlay, an API server and everything that runs on it."""
