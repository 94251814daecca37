"""The gate: what a run may be asked. Header, picture, features: all three doors must open."""
