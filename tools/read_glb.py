"""Gaussians of a glTF file at a time, read by pygltflib and moved as glTF 2.0 says.

Nodes, samplers and the extension's attributes are evaluated here from the specifications.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from gaussian_colours import rotated
from jaxtyping import Float, Shaped
from scipy.spatial.transform import Rotation, Slerp
from splats import Splats

_EXTENSION = "KHR_gaussian_splatting"
_TYPES = {5120: "<i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_OPENCV_FROM_GLTF = np.diag([1.0, -1.0, -1.0])


@dataclass
class GlbFile:
    """An open file; `at(time)` are its splats, `camera(time)` is its camera."""

    document: Any

    @classmethod
    def open(cls, path: Path) -> GlbFile:
        from pygltflib import GLTF2

        return cls(GLTF2().load_binary(str(path)))

    @property
    def duration(self) -> float:
        """Seconds of the clip, of which times are fractions."""
        return self.document.asset.extras["duration"]

    def at(self, time: float) -> Splats:
        """Return the splats at a normalised time, in the world of the input cameras."""
        pieces = [
            self._splats(primitive, matrix)
            for node, matrix in self.poses(time).items()
            if self.document.nodes[node].mesh is not None
            for primitive in self.document.meshes[self.document.nodes[node].mesh].primitives
        ]
        return Splats(
            *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in _FIELDS)
        )

    def camera(self, time: float) -> tuple[Float[np.ndarray, "4 4"], float, float]:
        """Return world_from_cam (OpenCV's axes, world of the input), yfov and aspect ratio."""
        for node, matrix in self.poses(time).items():
            if self.document.nodes[node].camera is not None:
                lens = self.document.cameras[self.document.nodes[node].camera].perspective
                flip = np.diag([1.0, -1.0, -1.0, 1.0])
                return flip @ matrix @ flip, lens.yfov, lens.aspectRatio
        raise ValueError("no camera")

    def poses(self, time: float) -> dict[int, Float[np.ndarray, "4 4"]]:
        """Return the global matrix of each node of the scene, in glTF's world."""
        document, local = self.document, {}
        for index, node in enumerate(document.nodes):
            local[index] = {
                "translation": np.array(node.translation or [0.0, 0.0, 0.0]),
                "rotation": np.array(node.rotation or [0.0, 0.0, 0.0, 1.0]),
                "scale": np.array(node.scale or [1.0, 1.0, 1.0]),
            }
        for animation in document.animations:
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                local[channel.target.node][channel.target.path] = _sample(
                    self._values(sampler.input)[:, 0],
                    self._values(sampler.output),
                    time * self.duration,
                    sampler.interpolation or "LINEAR",
                    channel.target.path,
                )
        found: dict[int, np.ndarray] = {}
        open_nodes = [(index, np.eye(4)) for index in document.scenes[document.scene].nodes]
        while open_nodes:
            index, parent = open_nodes.pop()
            own = np.eye(4)
            own[:3, :3] = Rotation.from_quat(local[index]["rotation"]).as_matrix()
            own[:3, :3] *= local[index]["scale"]
            own[:3, 3] = local[index]["translation"]
            found[index] = parent @ own
            open_nodes += [(child, found[index]) for child in document.nodes[index].children or []]
        return found

    def _splats(self, primitive: Any, matrix: Float[np.ndarray, "4 4"]) -> Splats:
        attributes = primitive.attributes
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        np.testing.assert_allclose(scale, scale[0], rtol=1e-5)  # no shear
        rotation = _OPENCV_FROM_GLTF @ (matrix[:3, :3] / scale)

        def values(name: str) -> Float[np.ndarray, "own ..."]:
            return self._values(getattr(attributes, f"{_EXTENSION}:{name}"))

        names = [
            f"SH_DEGREE_{degree}_COEF_{order}" for degree in range(4)
            for order in range(2 * degree + 1)
        ]  # fmt: skip
        present = [name for name in names if hasattr(attributes, f"{_EXTENSION}:{name}")]
        means = self._values(attributes.POSITION) @ matrix[:3, :3].T + matrix[:3, 3]
        quats = Rotation.from_matrix(rotation) * Rotation.from_quat(values("ROTATION"))
        return Splats(
            means @ _OPENCV_FROM_GLTF,
            np.roll(quats.as_quat(), 1, axis=1),
            values("SCALE") * scale,
            values("OPACITY")[:, 0],
            rotated(np.stack([values(name) for name in present], axis=1), rotation),
        )

    def _values(self, index: int) -> Shaped[np.ndarray, "count width"]:
        accessor = self.document.accessors[index]
        view = self.document.bufferViews[accessor.bufferView]
        kind, width = np.dtype(_TYPES[accessor.componentType]), _WIDTHS[accessor.type]
        first = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        stride = view.byteStride or kind.itemsize * width
        raw = np.frombuffer(self.document.binary_blob(), "u1")
        rows = np.lib.stride_tricks.as_strided(
            raw[first:], (accessor.count, kind.itemsize * width), (stride, 1)
        )
        numbers = np.ascontiguousarray(rows).view(kind).astype(np.float64)
        return numbers / np.iinfo(kind).max if accessor.normalized else numbers


_FIELDS = ("means", "quats_wxyz", "scales", "opacities", "harmonics")


def _sample(
    keys: Float[np.ndarray, " keys"],
    values: Float[np.ndarray, "keys width"],
    at: float,
    interpolation: str,
    path: str,
) -> Float[np.ndarray, " width"]:
    """Return a sampler's value; before the first and after the last key it stays as there."""
    if at <= keys[0] or at >= keys[-1]:
        return values[0] if at <= keys[0] else values[-1]
    row = int(np.searchsorted(keys, at, side="right")) - 1
    if interpolation == "STEP":
        return values[row]
    if path == "rotation":
        turn = Slerp(keys[row : row + 2], Rotation.from_quat(values[row : row + 2]))
        return turn(at).as_quat()
    fraction = (at - keys[row]) / (keys[row + 1] - keys[row])
    return values[row] + fraction * (values[row + 1] - values[row])


@lru_cache(maxsize=1)
def _opened(path: Path) -> GlbFile:
    return GlbFile.open(path)


def splats_at(path: Path, time: float) -> Splats:
    """Return the splats of a file at a normalised time."""
    return _opened(path).at(time)
