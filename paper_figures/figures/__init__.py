"""One module a notebook: its runs, tidy data, axes or a table out, and the captions beside them."""
