"""The CPU rasterizer: Numba kernels. docs/cpu_rasterizer.md explains how they work together."""
