"""Backends of the depth stage: every module here is imported, and registers its own."""
