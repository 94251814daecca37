"""The gate: what a run may be asked. Header, picture, layout, features: all checks must pass."""
