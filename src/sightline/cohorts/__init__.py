"""Public layouts to cohorts, cohorts to batches."""
