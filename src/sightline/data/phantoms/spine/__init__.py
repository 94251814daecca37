"""CTs of spines with fractured vertebrae."""
