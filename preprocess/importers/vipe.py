"""`msdyn-preprocess --from vipe DIR`: a clip in the results of ViPE."""

from __future__ import annotations

from pathlib import Path

from msdyn.io import Vipe
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.imported import Unpacked, write_file
from msdyn.preprocess.progress import progress
from msdyn.scene import write_cameras, write_mask

__all__ = ["unpack"]


def unpack(config: ImportConfig, folder: Path) -> Unpacked:
    """Write the cameras, depth and masks of a clip; its video is read where it is."""
    clip = Vipe(config.video, config.clip)
    write_cameras(folder / "cameras.json", clip.cameras)
    if clip.has_depth:
        maps = progress(clip.depth_files(), "reading depth", total=len(clip))
        for frame, content in enumerate(maps):
            write_file(folder / "depth", frame, ".exr", content)
    if clip.has_masks:
        for frame, mask in enumerate(progress(clip.masks(), "reading masks", total=len(clip))):
            write_mask(folder, frame, mask)
    return Unpacked(
        clip.video,
        folder / "cameras.json",
        folder / "depth" if clip.has_depth else None,
        folder / "masks" if clip.has_masks else None,
        metric=True,
    )
