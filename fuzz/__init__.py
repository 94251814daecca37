"""Inputs that are wrong in thousands of ways, against every reader; see docs/fuzz.md."""
