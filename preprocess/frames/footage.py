"""The frames of a scene together with those of its video between them.

`--fps` and `--max-frames` thin a clip. Trackers follow points through the frames in between as
well, where the motion from one frame to the next is smaller, and keep the positions in the frames
of the scene. The frames in between are decoded from the video again, one at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from msdyn.preprocess.frames.sources import read_source, resize_frame
from msdyn.scene import Scene

__all__ = ["MAX_STEPS", "Footage", "open_footage", "steps_between"]

MAX_STEPS = 8
"""Most steps from one frame of the scene to the next, so that tracking takes at most this many
times as long as on the frames of the scene alone."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footage:
    """A sequence of frames that contains those of a scene.

    Attributes:
        scene: the scene, whose frames are there.
        source_frames: [S] indices in the video, increasing, from the first to the last frame of the
            scene.
        kept: [T] index in this sequence of each frame of the scene, increasing.
        video: where the other frames are read; None if there are none.
        white: of 16-bit images, the value that is shown white.
        segment: seconds of the file between which the frames are; None is all of it.
    """

    scene: Scene
    source_frames: Int[np.ndarray, " frames"]
    kept: Int[np.ndarray, " scene_frames"]
    video: Path | None = None
    white: int = 255
    segment: tuple[float, float] | None = None

    @classmethod
    def of_scene(cls, scene: Scene) -> Footage:
        """Return the frames of a scene, and no others."""
        every = np.arange(len(scene))
        return cls(scene, every, every)

    def __len__(self) -> int:
        return len(self.source_frames)

    def coarser(self, most: int) -> Footage:
        """Return footage with at most `most` steps from one frame of the scene to the next."""
        source = self.source_frames[self.kept]
        frames = self.source_frames[steps_between(self.kept, most)]
        return replace(self, source_frames=frames, kept=np.searchsorted(frames, source))

    def images(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield all frames in order, RGB, in the size of the scene.

        Raises:
            FileNotFoundError: the video is gone.
            InputError: the video cannot be decoded.
        """
        height, width = self.scene.size
        between = np.setdiff1d(np.arange(len(self)), self.kept)
        others: Iterator[np.ndarray] = iter(())
        if self.video is not None and len(between):
            chosen = self.source_frames[between]
            others = read_source(self.video, chosen, self.white, self.segment)
        scene_frame = dict(zip(self.kept.tolist(), range(len(self.kept)), strict=True))
        for index in range(len(self)):
            if index in scene_frame:
                yield self.scene.image(scene_frame[index])
            else:
                lens = None
                if self.scene.lenses is not None:  # between two frames that of the one before
                    lens = self.scene.lenses[int(np.searchsorted(self.kept, index)) - 1]
                yield resize_frame(next(others), width, height, lens)


def open_footage(scene: Scene, video: Path, digest: str | None) -> Footage:
    """Return the footage of a scene; its own frames alone where the video is not at hand.

    Args:
        scene: its frames stage is done.
        video: where its frames came from.
        digest: of the content of the video now; None if it is gone.
    """
    options = scene.info.stages["frames"]["options"]
    source = np.array(options["source_frames"])
    frames = steps_between(source, MAX_STEPS)
    if len(frames) == len(source):
        return Footage.of_scene(scene)
    if digest is None or digest != options.get("source_digest"):
        _log.warning(
            "tracks: %s is %s; points are tracked from kept frame to kept frame, without those in "
            "between (--redo tracks once it is there)",
            video,
            "gone" if digest is None else "not the file that the frames were taken from",
        )
        return Footage.of_scene(scene)
    white = options.get("source_white", 255)
    part = options.get("segment")
    segment = None if part is None else (part["start"], part["end"])
    return Footage(scene, frames, np.searchsorted(frames, source), video, white, segment)


def steps_between(kept: Int[np.ndarray, " kept"], most: int) -> Int[np.ndarray, " frames"]:
    """Return frames of a video that lead from each kept frame to the next in at most `most` steps.

    Between two kept frames all frames are taken, or, where these are too many, evenly spaced ones.

    Args:
        kept: indices in the video, increasing.
        most: steps between two of them.
    """
    parts = [kept[:1]]
    for first, last in zip(kept[:-1], kept[1:], strict=True):
        steps = min(most, int(last - first))
        parts.append(np.round(np.linspace(first, last, steps + 1)).astype(int)[1:])
    return np.concatenate(parts)
