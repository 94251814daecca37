"""Which regions guide a map, and how they are drawn."""
