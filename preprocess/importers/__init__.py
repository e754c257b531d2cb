"""Data sets of others as scene directories."""
