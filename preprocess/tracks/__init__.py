"""Backends of the tracks stage."""
