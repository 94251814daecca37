"""Planning and judging a comparison of two methods: McNemar's test, non-inferiority, power."""
