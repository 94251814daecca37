"""What would spoil a result: leakage, duplicates, bad regions, shortcuts."""
