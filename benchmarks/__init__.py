"""Ratios against plain libraries, measured side by side in one process: `python -m benchmarks`."""
