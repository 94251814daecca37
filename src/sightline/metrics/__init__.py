"""Numbers with intervals from arrays and tables; every score can be computed again from saved predictions."""
