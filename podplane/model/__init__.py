"""Typed, frozen API objects: only the fields that planners and agents read (the store keeps whole objects)."""
