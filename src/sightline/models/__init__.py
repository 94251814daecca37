"""Networks whose forward returns Evidence."""
