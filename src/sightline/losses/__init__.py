"""What a training minimises beside or in place of the cross-entropy."""
