"""Floor 1: neural networks; no sampling and no Lightning here."""
