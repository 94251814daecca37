"""Our own folder layout: its format, reader and writer."""
