"""Picture files: what one holds, and whether all of it is there."""
