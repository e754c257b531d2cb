"""Clips to train the network on: a format in tar shards, its reader and sampler, and converters."""

from msdyn.feedforward.data.batch import ClipBatchOptions
from msdyn.feedforward.data.clip import Clip, ClipFrame, ClipTracks
from msdyn.feedforward.data.library import ClipLibrary
from msdyn.feedforward.data.shards import ClipWriter

__all__ = ["Clip", "ClipBatchOptions", "ClipFrame", "ClipLibrary", "ClipTracks", "ClipWriter"]
