"""Sightline: radiology classifiers that look where experts look."""

__version__ = "0.1.0"
