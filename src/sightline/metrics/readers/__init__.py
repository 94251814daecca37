"""Readers: several of them read the same cases in several ways; which way is better for other readers and cases."""
