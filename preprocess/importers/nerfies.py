"""`msdyn-preprocess --from nerfies DIR`: a capture of Nerfies, HyperNeRF or NeRF-DS."""

from __future__ import annotations

from pathlib import Path

from msdyn.io import read_nerfies
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.imported import Unpacked
from msdyn.preprocess.multi_camera import unpack_recording

__all__ = ["unpack"]


def unpack(config: ImportConfig, folder: Path) -> Unpacked:
    """Write what the input camera recorded; the others are held out."""
    return unpack_recording(read_nerfies(config.video, config.long_side or 0), config, folder)
