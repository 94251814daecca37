"""Networks and the parts they are built from."""
