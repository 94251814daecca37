"""Intervals, paired comparisons, and tests as published."""
