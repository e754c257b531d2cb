"""Gaussian sequences with multi-scale dynamics from one monocular video.

The names below are loaded when first used, so that importing msdyn stays light.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from msdyn.version import __version__

if TYPE_CHECKING:
    from msdyn.feedforward.predict import PredictConfig, predict_scene
    from msdyn.fit import FitConfig, fit_scene, preset
    from msdyn.geometry import Cameras, make_path
    from msdyn.render import auto_path, render_image, render_images
    from msdyn.scene import Scene, read_cameras
    from msdyn.scene import Scene as open_scene
    from msdyn.sequence import GaussianSequence, load_sequence, save_sequence

__all__ = [
    "__version__",
    "Cameras",
    "FitConfig",
    "GaussianSequence",
    "PredictConfig",
    "Scene",
    "auto_path",
    "fit_scene",
    "load_sequence",
    "make_path",
    "open_scene",
    "predict_scene",
    "preset",
    "read_cameras",
    "render_image",
    "render_images",
    "save_sequence",
]

_HOMES = {
    "Cameras": "msdyn.geometry",
    "FitConfig": "msdyn.fit",
    "GaussianSequence": "msdyn.sequence",
    "PredictConfig": "msdyn.feedforward.predict",
    "Scene": "msdyn.scene",
    "auto_path": "msdyn.render",
    "fit_scene": "msdyn.fit",
    "load_sequence": "msdyn.sequence",
    "make_path": "msdyn.geometry",
    "predict_scene": "msdyn.feedforward.predict",
    "preset": "msdyn.fit",
    "read_cameras": "msdyn.scene",
    "render_image": "msdyn.render",
    "render_images": "msdyn.render",
    "save_sequence": "msdyn.sequence",
}

# Waiting threads of OpenMP sleep instead of spinning (see `msdyn.thread_share`). Its library reads
# this when it is loaded, with torch: one imported before msdyn spins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# With these one gets a sequence, whose methods for notebooks are then to be there.
_OF_SEQUENCES = ("GaussianSequence", "fit_scene", "load_sequence", "predict_scene")


def __getattr__(name: str) -> Any:
    if name in _OF_SEQUENCES:
        import_module("msdyn.notebook")
    if name == "open_scene":
        return import_module("msdyn.scene").Scene
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
