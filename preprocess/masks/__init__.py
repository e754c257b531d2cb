"""Backends of the masks stage."""
