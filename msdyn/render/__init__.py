"""Rendering Gaussians: one contract, on a CPU and on CUDA."""

from msdyn.render.rasterizer import BACKENDS, Rendering, rasterize
from msdyn.render.render import RenderedImage, draw, render_image, render_images

__all__ = [
    "BACKENDS",
    "RenderedImage",
    "Rendering",
    "draw",
    "rasterize",
    "render_image",
    "render_images",
]
