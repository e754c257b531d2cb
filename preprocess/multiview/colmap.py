"""What all calls of COLMAP share: the camera of a scene, and silence.

COLMAP's conventions are ours: OpenCV axes, `cam_from_world`, pixel centres at +0.5. One camera is
shared by all frames: a single focal length, the principal point in the middle, no distortion, or
intrinsics that are known. `colmap_matching.py` finds features and matches, `colmap_mapping.py`
cameras and structure. Nothing is printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from msdyn.io import load_pycolmap
from msdyn.preprocess.multiview.intrinsics import KnownIntrinsics
from msdyn.scene import Scene

__all__ = ["CAMERA_ID", "colmap_camera", "quiet"]

CAMERA_ID = 1


def colmap_camera(scene: Scene, focal: float | KnownIntrinsics) -> Any:
    """Return COLMAP's camera of a scene."""
    height, width = scene.size
    if isinstance(focal, KnownIntrinsics) and focal.fixed:
        model, params = "PINHOLE", [focal.fx, focal.fy, focal.cx, focal.cy]
    elif isinstance(focal, KnownIntrinsics):
        model, params = "SIMPLE_PINHOLE", [focal.focal, focal.cx, focal.cy]
    else:
        model, params = "SIMPLE_PINHOLE", [float(focal), width / 2, height / 2]
    camera = load_pycolmap().Camera(model=model, width=width, height=height, params=params)
    camera.camera_id = CAMERA_ID
    camera.has_prior_focal_length = True
    return camera


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress COLMAP's log."""
    logging = load_pycolmap().logging
    level = logging.minloglevel
    logging.minloglevel = int(logging.FATAL)
    try:
        yield
    finally:
        logging.minloglevel = level
