"""How objects come in: C-STORE and STOW, each stored and committed before it is acknowledged."""
