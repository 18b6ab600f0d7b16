"""Controllers: what a change concerns, what is decided about it, and the loop that carries that out.

Decisions are pure, and the same on any API: those of a lab see its store (`apiserver.controllers`), those of a cluster what its API tells
(`watched`), as long as they lead (`leadership`).
"""
