"""Clips to train the network on: a format in tar shards, its reader and sampler, and converters."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.feedforward.data.batch import ClipBatchOptions
    from msdyn.feedforward.data.clip import Clip, ClipFrame, ClipTracks
    from msdyn.feedforward.data.library import ClipLibrary
    from msdyn.feedforward.data.shards import ClipWriter

__all__ = ["Clip", "ClipBatchOptions", "ClipFrame", "ClipLibrary", "ClipTracks", "ClipWriter"]

__getattr__ = lazy_names(
    __name__,
    {
        "batch": ("ClipBatchOptions",),
        "clip": (
            "Clip",
            "ClipFrame",
            "ClipTracks",
        ),
        "library": ("ClipLibrary",),
        "shards": ("ClipWriter",),
    },
)
