"""Synthetic clips that tests of several folders use, each rendered once per process."""

import functools

from msdyn.synthetic import Truth, make_scene, render_truth

__all__ = ["two_boxes"]


@functools.cache
def two_boxes(frames: int, width: int, height: int) -> Truth:
    """Return the exact truth of two boxes that move over a table. Tests must not change it."""
    return render_truth(make_scene("two-boxes", frames=frames, width=width, height=height))
