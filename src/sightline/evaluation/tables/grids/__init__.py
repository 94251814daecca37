"""What a researcher varies: the rows of a YAML file, or fields that are searched on validation."""
