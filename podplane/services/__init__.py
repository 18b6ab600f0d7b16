"""Services: frontends and endpoints as nf_tables."""
