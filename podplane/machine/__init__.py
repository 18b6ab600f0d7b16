"""What runs on a machine: an agent as a process of its own, its files, and what only the machine can tell it."""
