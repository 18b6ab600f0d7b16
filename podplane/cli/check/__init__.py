"""`podplane check`: the promises of the network model, each proved with packets from pods, nodes and outside."""
