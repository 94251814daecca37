"""What a prediction loses when the pixels a map names are taken away."""
