"""What runs will cost, known before they start."""
