"""glTF 2.0 documents in one binary file (GLB): nodes, points, cameras, animation.

Quaternions are xyzw, matrices are not used; axes are those of the caller's root node.

Reference: Khronos Group, "glTF 2.0 Specification".
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

import numpy as np
from jaxtyping import Shaped

from msdyn.errors import InputError
from msdyn.version import __version__
from msdyn.writing import atomic_path

__all__ = ["Gltf"]

_COMPONENTS = {"<f4": 5126, "|u1": 5121}
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_POINTS, _ARRAY_BUFFER = 0, 34962
_LARGEST = 2**32 - 1


class Gltf:
    """A document under construction. Indices of glTF are returned by what adds to it.

    Args:
        extensions: names of the extensions used, none of them required.
        extras: of the asset: anything that JSON can hold.
    """

    def __init__(self, extensions: tuple[str, ...] = (), extras: dict[str, Any] | None = None):
        self._document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"msdyn {__version__}"},
            "scene": 0,
            "scenes": [{"nodes": []}],
        }
        if extras:
            self._document["asset"]["extras"] = extras
        if extensions:
            self._document["extensionsUsed"] = list(extensions)
        self._binary, self._vertices = bytearray(), bytearray()
        self._stride, self._vertex_view = 0, -1
        self._accessors: dict[tuple, int] = {}
        self._samplers: dict[tuple, int] = {}

    def accessor(self, values: Shaped[np.ndarray, "count ..."], *, bounds: bool = False) -> int:
        """Add numbers, or return the accessor that has the same ones.

        Args:
            values: [N] or [N, 2..4] float32.
            bounds: store the least and largest values (required of key times).

        Raises:
            InputError: no values, or one is not finite.
        """
        values = np.ascontiguousarray(values)
        _check(values)
        key = (values.dtype.str, values.shape, bounds, values.tobytes())
        if key not in self._accessors:
            view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": values.nbytes}
            self._binary += values.tobytes() + bytes(-values.nbytes % 4)
            self._accessors[key] = self._add(
                "accessors", _accessor(self._add("bufferViews", view), 0, values, bounds=bounds)
            )
        return self._accessors[key]

    def vertices(self, columns: dict[str, Shaped[np.ndarray, "count ..."]]) -> dict[str, int]:
        """Add the vertices of a mesh and return the accessors of their attributes.

        All meshes share a buffer view, in which a vertex is one row.

        Args:
            columns: by attribute, the same ones at each call, `POSITION` among them: [N] or
                [N, 2..4] float32, or uint8 that fills whole words, fractions of 255.

        Raises:
            InputError: no vertices, or a number that is not finite.
        """
        parts, offsets, width = [], {}, 0
        for name, column in columns.items():
            _check(column)
            parts.append(np.ascontiguousarray(column).reshape(len(column), -1).view("u1"))
            offsets[name] = width
            width += parts[-1].shape[1]
        if self._stride not in (0, width):
            raise InputError(f"glTF: expected vertices of {self._stride} bytes, got {width}")
        if not self._stride:
            self._stride = width
            view = {"buffer": 0, "byteOffset": 0, "byteStride": width, "target": _ARRAY_BUFFER}
            self._vertex_view = self._add("bufferViews", view)
        first = len(self._vertices)
        self._vertices += np.concatenate(parts, axis=1).tobytes()
        return {
            name: self._add(
                "accessors",
                _accessor(
                    self._vertex_view, first + offsets[name], column, bounds=name == "POSITION"
                ),
            )
            for name, column in columns.items()
        }

    def node(self, parent: int | None = None, **fields: Any) -> int:
        """Add a node, below another or at the top of the scene; `fields` as glTF names them."""
        index = self._add("nodes", fields)
        if parent is None:
            self._document["scenes"][0]["nodes"].append(index)
        else:
            self._document["nodes"][parent].setdefault("children", []).append(index)
        return index

    def points(self, attributes: dict[str, int], extensions: dict[str, Any]) -> int:
        """Add a mesh of points with accessors as attributes; return it."""
        primitive = {"attributes": attributes, "mode": _POINTS, "extensions": extensions}
        return self._add("meshes", {"primitives": [primitive]})

    def camera(self, **fields: Any) -> int:
        """Add a camera; `fields` as glTF names them."""
        return self._add("cameras", fields)

    def animate(
        self, node: int, path: str, times: int, values: int, interpolation: str = "LINEAR"
    ) -> None:
        """Have accessors of key times (s) and values drive a property of a node."""
        clips = self._document.setdefault(
            "animations", [{"name": "clip", "samplers": [], "channels": []}]
        )
        samplers, key = clips[0]["samplers"], (times, values, interpolation)
        if key not in self._samplers:
            self._samplers[key] = len(samplers)
            samplers.append({"input": times, "output": values, "interpolation": interpolation})
        target = {"node": node, "path": path}
        clips[0]["channels"].append({"sampler": self._samplers[key], "target": target})

    def write(self, path: str | os.PathLike) -> None:
        """Write the document, atomically.

        Raises:
            InputError: it is larger than a binary file of glTF can be.
        """
        document = json.loads(json.dumps(self._document))
        if self._vertices:
            document["bufferViews"][self._vertex_view]["byteLength"] = len(self._vertices)
            for row, view in enumerate(document["bufferViews"]):
                view["byteOffset"] += len(self._vertices) if row != self._vertex_view else 0
        binary = self._vertices + self._binary
        if binary:
            document["buffers"] = [{"byteLength": len(binary)}]
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        chunks = [(b"JSON", text + b" " * (-len(text) % 4))]
        if binary:
            chunks.append((b"BIN\0", bytes(binary)))
        size = 12 + sum(8 + len(content) for _, content in chunks)
        if size > _LARGEST:
            raise InputError(f"{path}: expected less than 4 GiB, the limit of glTF, got {size} "
                             "bytes; write fewer times, as --times 0:1:24")  # fmt: skip
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, size))
            for kind, content in chunks:
                file.write(struct.pack("<I4s", len(content), kind) + content)

    def _add(self, kind: str, entry: dict[str, Any]) -> int:
        rows = self._document.setdefault(kind, [])
        rows.append(entry)
        return len(rows) - 1


def _accessor(
    view: int, offset: int, values: Shaped[np.ndarray, "count ..."], *, bounds: bool
) -> dict[str, Any]:
    accessor: dict[str, Any] = {
        "bufferView": view,
        "byteOffset": offset,
        "componentType": _COMPONENTS[values.dtype.str],
        "count": len(values),
        "type": _KINDS[1 if values.ndim == 1 else values.shape[1]],
    }
    if values.dtype.kind == "u":
        accessor["normalized"] = True
    if bounds:
        rows = values.reshape(len(values), -1)
        accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
    return accessor


def _check(values: Shaped[np.ndarray, "count ..."]) -> None:
    if not len(values) or not np.isfinite(values).all():
        raise InputError("glTF: expected finite numbers, got NaN, infinity or none")
