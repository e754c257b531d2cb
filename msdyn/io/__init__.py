"""File formats, one module each."""

from msdyn.io.blender import read_blender
from msdyn.io.camera_file import TimedCameras, read_camera_file
from msdyn.io.camera_folder import read_camera_folder
from msdyn.io.camera_layouts import CAMERA_LAYOUTS, read_posed_images
from msdyn.io.colmap import find_colmap_model, load_pycolmap, read_colmap
from msdyn.io.colmap_writer import write_colmap
from msdyn.io.compressed_ply import write_compressed_ply
from msdyn.io.cotracker import read_cotracker, tracks_of_cotracker
from msdyn.io.depth_anything3 import read_depth_anything3
from msdyn.io.depth_maps import DEPTH_SUFFIXES, read_depth_map
from msdyn.io.dycheck import Dycheck, DycheckView, write_dycheck_views
from msdyn.io.dycheck_writer import write_dycheck
from msdyn.io.flo import read_flo, write_flo
from msdyn.io.gltf import Gltf
from msdyn.io.lerobot import LeRobotDataset, manifest_rows
from msdyn.io.lerobot_cameras import Calibration, depth_feature, find_calibration, image_size
from msdyn.io.lerobot_columns import column_values, feature_column
from msdyn.io.lerobot_layout import Episode, Feature, LeRobotInfo, VideoSegment
from msdyn.io.lerobot_videos import (
    DepthCodes,
    depth_codes,
    read_depth_segment,
    video_feature,
)
from msdyn.io.lerobot_writer import LeRobotWriter
from msdyn.io.links import Link, LinkJoint, wxyz
from msdyn.io.megasam import read_megasam
from msdyn.io.mjcf import write_mjcf
from msdyn.io.multi_camera import MultiCamera, RecordedCamera
from msdyn.io.nerfies import read_nerfies
from msdyn.io.nerfstudio import read_nerfstudio
from msdyn.io.nerfstudio_paths import write_transforms
from msdyn.io.nvidia_dynamic import NvidiaScene, find_nvidia_scenes
from msdyn.io.obj import write_obj
from msdyn.io.panoptic import read_panoptic
from msdyn.io.photos import centre_crop, cropped_cameras
from msdyn.io.ply import write_gaussians_ply, write_points_ply
from msdyn.io.posed_images import PosedImages, ScenePoints
from msdyn.io.realestate10k import (
    RealEstate10K,
    RealEstateClip,
    RealEstatePair,
    read_evaluation_index,
)
from msdyn.io.record3d import Record3D
from msdyn.io.recorded_images import depth_of, encoded_suffix, rgb_of
from msdyn.io.robot_recording import RobotRecording
from msdyn.io.ros_messages import ImageMessage
from msdyn.io.spz import write_spz
from msdyn.io.tapvid3d import Tapvid3dClip, read_tapvid3d, read_tapvid3d_clip
from msdyn.io.tum import read_tum, write_tum
from msdyn.io.urdf import write_urdf
from msdyn.io.video import (
    VideoInfo,
    VideoWriter,
    read_video,
    scan_video,
    thumbnail_size,
    write_video,
)
from msdyn.io.video_packets import STREAM_SUFFIXES, begins_stream, write_stream_as_mp4
from msdyn.io.vipe import Vipe

__all__ = [
    "CAMERA_LAYOUTS",
    "Calibration",
    "DEPTH_SUFFIXES",
    "DepthCodes",
    "Dycheck",
    "DycheckView",
    "STREAM_SUFFIXES",
    "ImageMessage",
    "Episode",
    "Feature",
    "Gltf",
    "LeRobotDataset",
    "LeRobotInfo",
    "LeRobotWriter",
    "Link",
    "LinkJoint",
    "MultiCamera",
    "NvidiaScene",
    "PosedImages",
    "RealEstate10K",
    "RealEstateClip",
    "RealEstatePair",
    "Record3D",
    "RecordedCamera",
    "RobotRecording",
    "ScenePoints",
    "Tapvid3dClip",
    "TimedCameras",
    "VideoInfo",
    "VideoSegment",
    "VideoWriter",
    "Vipe",
    "begins_stream",
    "centre_crop",
    "column_values",
    "cropped_cameras",
    "depth_of",
    "encoded_suffix",
    "depth_codes",
    "depth_feature",
    "feature_column",
    "find_calibration",
    "find_colmap_model",
    "find_nvidia_scenes",
    "image_size",
    "load_pycolmap",
    "manifest_rows",
    "read_blender",
    "read_camera_file",
    "read_camera_folder",
    "read_colmap",
    "read_cotracker",
    "read_depth_anything3",
    "read_depth_map",
    "read_depth_segment",
    "read_evaluation_index",
    "read_flo",
    "read_megasam",
    "read_nerfies",
    "read_nerfstudio",
    "read_panoptic",
    "read_posed_images",
    "read_tapvid3d",
    "read_tapvid3d_clip",
    "read_tum",
    "read_video",
    "rgb_of",
    "scan_video",
    "thumbnail_size",
    "tracks_of_cotracker",
    "video_feature",
    "write_colmap",
    "write_dycheck",
    "write_dycheck_views",
    "write_flo",
    "write_compressed_ply",
    "write_gaussians_ply",
    "write_mjcf",
    "write_obj",
    "write_points_ply",
    "write_spz",
    "write_stream_as_mp4",
    "write_transforms",
    "write_tum",
    "write_urdf",
    "write_video",
    "wxyz",
]
