"""What to do with a probability: thresholds, promised miss rates, net benefit, and for whom they hold."""
