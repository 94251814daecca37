"""Tasks, plans, queues and what a reader may know."""
