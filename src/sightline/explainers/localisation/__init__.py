"""From maps to points and boxes."""
