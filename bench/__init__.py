"""What podplane costs, each figure beside a peer or the kernel's own limit, in one run."""
