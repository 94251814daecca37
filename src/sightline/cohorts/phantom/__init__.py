"""Drawn radiographs with known truth, for tests and demonstrations where clinical data are closed."""
