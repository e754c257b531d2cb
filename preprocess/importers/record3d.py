"""`msdyn-preprocess --from record3d PATH`: a recording of Record3D, on an iPhone or iPad."""

from __future__ import annotations

from pathlib import Path

from msdyn.io import Record3D, encoded_suffix
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.imported import Unpacked, write_file, write_times
from msdyn.preprocess.progress import progress
from msdyn.reading import image_size
from msdyn.scene import write_cameras, write_depth

__all__ = ["unpack"]


def unpack(config: ImportConfig, folder: Path) -> Unpacked:
    """Write the images, cameras and depth of a recording."""
    recording = Record3D(config.video)
    images = folder / config.video.resolve().name
    width = 0
    for frame, content in enumerate(
        progress(recording.images(), "reading images", total=len(recording))
    ):
        what = f"{recording.path}: image of frame {frame}"
        write_file(images, frame, encoded_suffix(content, what), content)
        width = width or image_size(content, what)[0]
    write_times(images, recording.seconds)
    if recording.has_depth:
        maps = progress(recording.depths(), "reading depth", total=len(recording))
        for frame, depth in enumerate(maps):
            write_depth(folder, frame, depth)
    cameras = folder / "cameras.json"
    if recording.cameras is not None:
        write_cameras(cameras, recording.cameras)
    fx, fy, cx, cy = (value * width / recording.size[1] for value in recording.intrinsics)
    return Unpacked(
        images,
        None if recording.cameras is None else cameras,
        folder / "depth" if recording.has_depth else None,
        intrinsics=(fx, fy, cx, cy),
        metric=True,
    )
