"""The store: one database, operations that are only ever added, and an audit chain."""
