"""The rasterizer on a CPU. docs/cpu_rasterizer.md explains how its parts work together."""
