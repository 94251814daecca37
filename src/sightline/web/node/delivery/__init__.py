"""How results leave: outbox, senders, storage commitment, and cleaning of what is safe elsewhere."""
