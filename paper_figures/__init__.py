"""The paper's tables and figures: tidy data in, axes or a table out, one function each."""
