"""The program that container engines run: it hands its call to the agent of the node, and copies the answer."""
