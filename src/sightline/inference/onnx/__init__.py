"""Trained networks as ONNX graphs: written and checked with torch, asked without it."""
