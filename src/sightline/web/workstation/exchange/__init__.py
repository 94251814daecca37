"""Marks out of the workstation and into it."""
