"""Checkpoints of networks: sources, licences, loading, and the device to run on."""
