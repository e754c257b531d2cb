"""From a video to a scene directory: frames, tracks, masks, cameras, depth."""

from msdyn.preprocess.config import STAGES, PreprocessConfig, Stage
from msdyn.preprocess.pipeline import preprocess_video

__all__ = ["STAGES", "PreprocessConfig", "Stage", "preprocess_video"]
