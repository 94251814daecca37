"""The gate: what a run may be asked. Header, picture, features: all three checks must pass."""
