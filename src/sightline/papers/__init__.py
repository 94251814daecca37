"""One page a paper: its recipes and its tables."""
