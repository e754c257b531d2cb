"""`msdyn-preprocess --from recording DIR`: calibrated cameras in the layout of `camera_folder`."""

from __future__ import annotations

from pathlib import Path

from msdyn.io import read_camera_folder
from msdyn.preprocess.config import ImportConfig
from msdyn.preprocess.imported import Unpacked
from msdyn.preprocess.multi_camera import unpack_recording

__all__ = ["unpack"]


def unpack(config: ImportConfig, folder: Path) -> Unpacked:
    """Write what the input camera recorded; the others are held out."""
    return unpack_recording(read_camera_folder(config.video), config, folder)
