"""Examples and mixtures: the exact strings, the scorers, the files they are read from."""
