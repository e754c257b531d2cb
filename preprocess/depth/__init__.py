"""Backends of the depth stage."""
