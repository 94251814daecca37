"""Rules by which activations pass a gradient back: vanilla, guided, deconvolution."""
