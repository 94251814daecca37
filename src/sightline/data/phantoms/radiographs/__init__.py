"""Radiographs of wrists and femurs, with fractures, markers and hardware."""
