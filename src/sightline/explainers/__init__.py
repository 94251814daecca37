"""From a network to a map, a box or the reading of a unit, and checks of such maps."""
