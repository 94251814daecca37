"""A run's units become a report."""
