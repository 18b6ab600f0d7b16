"""Whether other nodes answer: which ones a node watches, what it knows of the ways to them, and what follows from that. All is pure."""
