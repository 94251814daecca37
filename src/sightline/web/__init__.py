"""What other machines and browsers open: the node in a hospital's network, the workstation in a browser."""
