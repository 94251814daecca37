"""The nouns that rooms hand to each other: frames, regions, gaze, cases, evidence, and their protocols."""
