"""Rendering a Gaussian sequence: images, depth, flow, tracks of pixels and objects."""

from msdyn.render.flow import Flow, render_flow
from msdyn.render.order import Order, input_axis, jittered_axes, steady_axis
from msdyn.render.path_choice import MAX_UNSUPPORTED, AutoPath, auto_path, focus_points
from msdyn.render.pictures import Painter, render_objects
from msdyn.render.queries import query_objects, query_tracks, rendered_depth
from msdyn.render.render import RenderedImage, draw, render_image, render_images
from msdyn.render.support import InputViews
from msdyn.render.through_lens import (
    LensPainter,
    distorted_pixels,
    lens_at,
    render_flow_through,
    straight_pixels,
)
from msdyn.render.trails import gaussian_trails, trail_gaussians
from msdyn.render.trajectories import PointTracks, grid_points, point_tracks
from msdyn.render.visibility import is_on_surface

__all__ = [
    "MAX_UNSUPPORTED",
    "AutoPath",
    "Flow",
    "InputViews",
    "LensPainter",
    "Order",
    "Painter",
    "PointTracks",
    "RenderedImage",
    "auto_path",
    "distorted_pixels",
    "draw",
    "focus_points",
    "gaussian_trails",
    "grid_points",
    "input_axis",
    "is_on_surface",
    "jittered_axes",
    "lens_at",
    "point_tracks",
    "query_objects",
    "query_tracks",
    "render_flow",
    "render_flow_through",
    "render_image",
    "render_images",
    "render_objects",
    "rendered_depth",
    "steady_axis",
    "straight_pixels",
    "trail_gaussians",
]
