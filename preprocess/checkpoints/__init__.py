"""Checkpoints of networks: sources, licences, loading, and the device they run on."""
