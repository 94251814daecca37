"""Do probabilities mean what they say, and how they are made to: fitted on validation, applied everywhere after."""
