"""Scores of units: ranks against chance, agreement with masks."""
