"""Maps against regions and gaze."""
