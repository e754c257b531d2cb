"""Random scenes with exact depth and motion: what they are, and how they look."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.feedforward.scenes.options import SceneOptions
    from msdyn.feedforward.scenes.random_scenes import RandomScenes
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
    "render_batch",
    "render_views",
]

__getattr__ = lazy_names(
    __name__,
    {
        "options": ("SceneOptions",),
        "random_scenes": ("RandomScenes",),
        "render": (
            "BatchOptions",
            "random_batch",
            "render_batch",
            "render_views",
        ),
    },
)
