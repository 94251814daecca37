"""Numbers with intervals, recomputable from saved predictions."""
