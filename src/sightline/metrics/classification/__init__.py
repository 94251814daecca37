"""Scores of probabilities against labels."""
