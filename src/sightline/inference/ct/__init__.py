"""Every vertebra of a CT."""
