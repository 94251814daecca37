"""Operations on marks: what is allowed, what they add up to, and how long they took."""
