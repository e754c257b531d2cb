"""Random scenes with exact depth and motion: what they are, and how they look."""

from msdyn.feedforward.scenes.random_scenes import RandomScenes, SceneOptions, random_scenes
from msdyn.feedforward.scenes.render import (
    BatchOptions,
    random_batch,
    render_batch,
    render_views,
)

__all__ = [
    "BatchOptions",
    "RandomScenes",
    "SceneOptions",
    "random_batch",
    "random_scenes",
    "render_batch",
    "render_views",
]
