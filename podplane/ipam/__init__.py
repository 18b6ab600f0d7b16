"""Addresses: the cluster's pool is split into node blocks, a node's block into pod addresses.

`plan` checks the CIDRs of a cluster against each other and says what fits; `pool` hands out blocks of a CIDR and
addresses of a block, the next free one first, so that a released one is not used again before all others were.
"""
