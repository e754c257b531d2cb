"""The scene directory: reading, writing, checking."""

from msdyn.scene.camera_files import parse_cameras, read_cameras, write_cameras
from msdyn.scene.check import SceneReport, check_scene
from msdyn.scene.keypoints import Keypoints, read_keypoints, write_keypoints
from msdyn.scene.lens_file import LENS_FILE, FrameLenses, original_lenses, read_lenses, write_lenses
from msdyn.scene.lifted import LiftedObservations, LiftedTracks
from msdyn.scene.npz import save_npz
from msdyn.scene.robot import RobotEpisode, read_robot, write_robot
from msdyn.scene.scene import (
    IGNORE,
    STATIC,
    Scene,
    SceneInfo,
    Tracks3D,
    View,
    frame_path,
    read_depth,
)
from msdyn.scene.stages import StageRecord
from msdyn.scene.timeline import Timeline
from msdyn.scene.tracks import Maps, canonical_frame, lift_scene_tracks, lift_tracks
from msdyn.scene.tracks2d import Observations, Tracks, read_tracks, write_tracks
from msdyn.scene.writer import (
    create_scene,
    stamp_stage,
    unstamp_stage,
    write_depth,
    write_image,
    write_mask,
    write_posed_clip,
    write_view,
)

__all__ = [
    "FrameLenses",
    "IGNORE",
    "Keypoints",
    "LENS_FILE",
    "LiftedObservations",
    "LiftedTracks",
    "Maps",
    "Observations",
    "RobotEpisode",
    "STATIC",
    "Scene",
    "SceneInfo",
    "SceneReport",
    "StageRecord",
    "Timeline",
    "Tracks",
    "Tracks3D",
    "View",
    "canonical_frame",
    "check_scene",
    "create_scene",
    "frame_path",
    "lift_scene_tracks",
    "lift_tracks",
    "original_lenses",
    "parse_cameras",
    "read_cameras",
    "read_depth",
    "read_keypoints",
    "read_lenses",
    "read_robot",
    "read_tracks",
    "save_npz",
    "stamp_stage",
    "unstamp_stage",
    "write_cameras",
    "write_depth",
    "write_image",
    "write_keypoints",
    "write_lenses",
    "write_mask",
    "write_posed_clip",
    "write_robot",
    "write_tracks",
    "write_view",
]
