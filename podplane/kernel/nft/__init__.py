"""nf_tables of one network namespace: values as transactions, and back."""

from podplane.kernel.nft.table import KernelTables, Nft

__all__ = ["KernelTables", "Nft"]
