"""Chest radiographs that a simulated reader looked at."""
