"""The motion hierarchy and the motion field."""

from msdyn.motion.field import Blend, MotionField
from msdyn.motion.hierarchy import build_hierarchy
from msdyn.motion.patterns import MotionHierarchy, PatternLevel
from msdyn.motion.rejoin import ObjectSurfaces
from msdyn.motion.single import build_single
from msdyn.motion.weights import blends_from_neighbours, blends_from_votes

__all__ = [
    "Blend",
    "MotionField",
    "MotionHierarchy",
    "ObjectSurfaces",
    "PatternLevel",
    "blends_from_neighbours",
    "blends_from_votes",
    "build_hierarchy",
    "build_single",
]
