"""Drawn cohorts with known truth."""
