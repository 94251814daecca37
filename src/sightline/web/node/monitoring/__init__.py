"""What an operator sees: metrics, logs without names, drift, the report of a period."""
