"""Reporting guidelines, filled from a run's own files."""
