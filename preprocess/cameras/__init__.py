"""Backends of the cameras stage, and how far their results can be trusted."""
