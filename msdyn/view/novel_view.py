"""The video that a report opens with: the scene along the path `auto`, while time plays."""

from __future__ import annotations

import numpy as np

from msdyn.html import Markup, figure, video
from msdyn.io import write_video
from msdyn.progress import track
from msdyn.render import auto_path, render_images
from msdyn.sequence import GaussianSequence
from msdyn.writing import scratch_folder

__all__ = ["novel_view"]

_SIDE = 480
"""Longer side of the video, px."""
_FEWEST, _MOST = 24, 96
"""Number of frames; that of the clip in between."""
_MIN_SECONDS = 2.0
"""Shorter clips are slowed down."""
_MAX_BYTES = 2_000_000
_QUALITIES = (23, 29, 35)
"""Constant rate factors of x264; the first one whose file is small enough is used."""


def novel_view(sequence: GaussianSequence) -> Markup:
    """Return the video along the path `auto` as a figure; its caption states what was measured.

    The video has a longer side of at most 480 px, at most 96 frames and, as a rule, 2 MB.
    """
    frames = len(sequence.timeline)
    count = min(max(frames, _FEWEST), _MOST)
    clip_seconds = frames / sequence.timeline.fps
    seconds = max(clip_seconds, _MIN_SECONDS)
    times = np.linspace(0, 1, count)
    path = auto_path(sequence, times, seconds=seconds)
    images = render_images(sequence, path.cameras.shrunk(_SIDE), times)
    pictures = [image.rgb8 for image in track(images, "render report", count)]
    caption = f"Novel view: {path}"
    if seconds > clip_seconds:
        caption += f"; slowed down {seconds / clip_seconds:.1f} times"
    with scratch_folder() as folder:
        file = folder / "novel.mp4"
        for quality in _QUALITIES:
            write_video(file, pictures, count / seconds, crf=quality)
            if file.stat().st_size <= _MAX_BYTES:
                break
        return figure(video(file, caption), caption)
