"""Files of a data set become cases, cases become batches."""
