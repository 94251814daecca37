"""Bytes become arrays with a frame, and arrays become bytes."""
