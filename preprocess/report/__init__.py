"""The report on a preprocessed scene, and the figures that it rests on."""
