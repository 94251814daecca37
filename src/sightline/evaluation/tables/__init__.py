"""Runs become a table."""
