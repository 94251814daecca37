"""What prediction leaves behind: one answer a study, boxes for other programs, a journal of what is done."""
