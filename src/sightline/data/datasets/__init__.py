"""Published layouts, one module each."""
