"""Backends of the masks stage: every module here is imported, and registers its own."""
