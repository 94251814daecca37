"""Whether a map depends on image, weights and class, before it is shown."""
