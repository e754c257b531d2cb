"""From a video to a scene directory: frames, tracks, masks, cameras, depth."""

from msdyn.preprocess.config import STAGES, PreprocessConfig, Stage
from msdyn.preprocess.pipeline import preprocess_video
from msdyn.preprocess.presets import WITHOUT_WEIGHTS

__all__ = ["STAGES", "WITHOUT_WEIGHTS", "PreprocessConfig", "Stage", "preprocess_video"]
