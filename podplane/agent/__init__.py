"""One node's agent: it keeps the kernel as the API asks, and attaches pods. Nothing in it knows of the lab."""
