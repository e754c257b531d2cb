"""Rasterizing Gaussians: one contract, on a CPU and on CUDA. It knows tensors only."""

from msdyn.raster.contract import Rendering
from msdyn.raster.rasterizer import BACKENDS, rasterize

__all__ = ["BACKENDS", "Rendering", "rasterize"]
