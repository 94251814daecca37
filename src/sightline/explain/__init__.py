"""Maps from a model, and what can be read from them."""
