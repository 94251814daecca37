"""Recipe, run, table, report."""
