"""The packet evaluator: where a packet goes over a set of values, without a kernel. Pure."""
