"""Differentiable rasterization of 3D Gaussians on CPUs and CUDA, from tensors alone."""

from msdyn.raster.contract import Rendering
from msdyn.raster.rasterizer import BACKENDS, rasterize

__all__ = ["BACKENDS", "Rendering", "rasterize"]
