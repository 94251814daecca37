"""What a reviewer asks for after the table: calibration, operating points, comparisons, capsules, checklists."""
