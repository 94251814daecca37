"""Losses that compare maps with what experts marked."""
