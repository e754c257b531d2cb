"""The report on a preprocessed scene, and the figures in it."""
