"""Bytes to arrays with a Frame, and back."""
