"""The kinds that are served: one row each in `table`, with columns (`printing`) and rules (`pods`, `workloads`, `networking`, …)."""
