"""A run's outputs meet the reference."""
