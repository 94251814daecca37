"""What the units of a layer respond to."""
