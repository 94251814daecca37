"""Where the trainings of a table run: processes of this machine, or tasks of a Ray cluster."""
