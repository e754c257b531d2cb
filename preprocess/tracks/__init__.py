"""Backends of the tracks stage: every module here is imported, and registers its own."""
