"""`podplane check --kubeconfig`: the parties are pods of podplane's image on a cluster that others made, whichever network it has."""
