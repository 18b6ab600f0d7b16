"""Values as text, in the syntax of `ip` and `nft`: for golden files, and for people. Pure."""
