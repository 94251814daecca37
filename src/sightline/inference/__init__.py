"""A run meets files or cohorts and says what is there."""
