"""The workstation: experts mark, in measured time, and nothing they do is lost."""
