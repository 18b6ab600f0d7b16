"""How something wrong is told."""

from __future__ import annotations

from typing import NamedTuple

NODE, POD = "NODE", "POD"
"""In what to do: the node, or the agent's pod there. Of one node their names are filled in."""


class Problem(NamedTuple):
    """What is wrong: a sentence about the cluster, or the end of one that begins with the names of nodes; and what to do ("": that says
    it). Many of one `kind`, which is such an end, too, are told as one."""

    text: str
    nodes: tuple[str, ...] = ()
    todo: str = ""
    kind: str = ""
