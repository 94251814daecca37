"""Layouts with the gaze of readers."""
