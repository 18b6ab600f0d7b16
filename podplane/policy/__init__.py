"""NetworkPolicy: who may talk to whom, by labels, addresses and ports. Pure."""
