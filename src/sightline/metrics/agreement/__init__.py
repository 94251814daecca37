"""How far readers agree: on labels, numbers, masks, boxes and lines."""
