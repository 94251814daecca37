"""Batch norm folded into the convolution before it, for passes that train through maps."""
