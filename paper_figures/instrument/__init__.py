"""How the files of msft/tiny are made: the embedded mixtures, and the small base models that have met their world."""
