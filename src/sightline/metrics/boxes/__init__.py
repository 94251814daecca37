"""Boxes against boxes: overlap, detection curves, baselines."""
