"""One module a publication: its recipes, tables and printed values; the catalogue of words."""
