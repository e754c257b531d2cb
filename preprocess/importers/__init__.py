"""Importers of data sets as scene directories."""
