"""Forward passes over rows without padding, behind prefixes that are read in place."""
