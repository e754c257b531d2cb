"""Rendering a Gaussian sequence: images, flow, tracks of pixels, and pictures of them."""

from msdyn.render.colours import (
    colour_depth,
    colour_flow,
    colour_objects,
    error_image,
    object_palette,
)
from msdyn.render.flow import Flow, render_flow
from msdyn.render.pictures import Painter, render_objects
from msdyn.render.queries import query_objects, query_tracks, rendered_depth
from msdyn.render.render import RenderedImage, draw, render_image, render_images
from msdyn.render.trajectories import PointTracks, grid_points, point_tracks

__all__ = [
    "Flow",
    "Painter",
    "PointTracks",
    "RenderedImage",
    "colour_depth",
    "colour_flow",
    "colour_objects",
    "draw",
    "error_image",
    "grid_points",
    "object_palette",
    "point_tracks",
    "query_objects",
    "query_tracks",
    "render_flow",
    "render_image",
    "render_images",
    "render_objects",
    "rendered_depth",
]
