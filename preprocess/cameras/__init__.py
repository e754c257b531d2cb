"""Backends of the cameras stage: every module here is imported, and registers its own."""
