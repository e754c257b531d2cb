"""Clips to train the network on: a format in tar shards, its reader and sampler, and converters."""
