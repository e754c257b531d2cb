"""Rigid transforms, Procrustes alignment, pinhole cameras and camera paths."""

from msdyn.geometry.cameras import (
    Cameras,
    CameraTensors,
    depth_in_camera,
    invert_transforms,
    look_at,
    nearest_pixels,
    project,
    transform_points,
    unproject,
    world_points_from_depth,
)
from msdyn.geometry.harmonics import SH_C0, harmonics_basis
from msdyn.geometry.paths import PATHS, focus_point, make_path
from msdyn.geometry.procrustes import (
    Alignment,
    align_camera_paths,
    nearest_rotations,
    procrustes,
    similarity_from_points,
)
from msdyn.geometry.registration import (
    Registration,
    SurfaceSamples,
    register_surfaces,
    sample_normals,
    surface_agreement,
)
from msdyn.geometry.rigid import Rigid, Similarity
from msdyn.geometry.rotations import (
    interpolate_rotations,
    multiply_quats_wxyz,
    quats_wxyz_from_rotations,
    rotations_from_quats_wxyz,
    rotations_from_rotvecs,
    rotations_from_sixd,
    rotvecs_from_rotations,
    sixd_from_rotations,
)

__all__ = [
    "PATHS",
    "SH_C0",
    "Alignment",
    "CameraTensors",
    "Cameras",
    "Registration",
    "Rigid",
    "Similarity",
    "SurfaceSamples",
    "align_camera_paths",
    "depth_in_camera",
    "focus_point",
    "harmonics_basis",
    "interpolate_rotations",
    "invert_transforms",
    "look_at",
    "make_path",
    "multiply_quats_wxyz",
    "nearest_pixels",
    "nearest_rotations",
    "procrustes",
    "project",
    "quats_wxyz_from_rotations",
    "register_surfaces",
    "rotations_from_quats_wxyz",
    "rotations_from_rotvecs",
    "rotations_from_sixd",
    "rotvecs_from_rotations",
    "sample_normals",
    "similarity_from_points",
    "sixd_from_rotations",
    "surface_agreement",
    "transform_points",
    "unproject",
    "world_points_from_depth",
]
