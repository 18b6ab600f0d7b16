"""nf_tables of one network namespace: values as transactions, and back."""

from podplane.kernel.nft.table import Nft

__all__ = ["Nft"]
