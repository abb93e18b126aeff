"""The streams of the electron density on a GPU, with every pair layer and its messages in one kernel."""
