"""How a case becomes the array that a network is given."""
