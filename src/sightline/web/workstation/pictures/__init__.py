"""Pixels, volumes, maps and gaze for the page."""
