"""Motion of objects: the motion hierarchy from tracks, and the motion models of sequences."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.motion.alignment import noise_of_second_differences
    from msdyn.motion.config import MotionConfig
    from msdyn.motion.hierarchy import build_hierarchy
    from msdyn.motion.joint_refinement import refine_levels
    from msdyn.motion.models.hierarchical import MotionField
    from msdyn.motion.models.single import SingleLayer, build_single
    from msdyn.motion.patterns import MotionHierarchy, PatternLevel
    from msdyn.motion.protocol import (
        Motion,
        MotionLearningRates,
        Pose,
        TrackedMotion,
        TrackedScene,
        motion_class,
    )
    from msdyn.motion.registry import motion_names, register_motion
    from msdyn.motion.reregistration import ObjectSurfaces

__all__ = [
    "Motion",
    "MotionConfig",
    "MotionField",
    "MotionHierarchy",
    "MotionLearningRates",
    "ObjectSurfaces",
    "PatternLevel",
    "Pose",
    "SingleLayer",
    "TrackedMotion",
    "TrackedScene",
    "build_hierarchy",
    "build_single",
    "motion_class",
    "motion_names",
    "noise_of_second_differences",
    "refine_levels",
    "register_motion",
]

__getattr__ = lazy_names(
    __name__,
    {
        "alignment": ("noise_of_second_differences",),
        "config": ("MotionConfig",),
        "hierarchy": ("build_hierarchy",),
        "joint_refinement": ("refine_levels",),
        "models.hierarchical": ("MotionField",),
        "models.single": (
            "SingleLayer",
            "build_single",
        ),
        "patterns": (
            "MotionHierarchy",
            "PatternLevel",
        ),
        "protocol": (
            "Motion",
            "MotionLearningRates",
            "Pose",
            "TrackedMotion",
            "TrackedScene",
            "motion_class",
        ),
        "registry": (
            "motion_names",
            "register_motion",
        ),
        "reregistration": ("ObjectSurfaces",),
    },
)
