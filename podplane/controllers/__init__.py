"""Controllers: what a change concerns, what is decided about it, and the loop that carries that out. Decisions are pure, and need no store."""
