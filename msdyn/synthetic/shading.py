"""Colour of surface points: textures in one atlas, and light from fixed sources.

Every part is textured by projecting its rest shape along the axis closest to each face's normal: at
most six charts per part, each with its own texture of a given number of texels per metre. One atlas
holds all charts, with its mip levels side by side in one image, so that all samples of an image are
looked up at once.

Light comes from above, from below and from one lamp. Moving objects cast no shadow, so that colours
only change with the surface normals; the light on static surfaces, with the soft shadows of static
surfaces, is computed once per vertex.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from msdyn.geometry import Cameras
from msdyn.synthetic.raycast import Caster, RayMesh, SurfacePoints
from msdyn.synthetic.spec import Part

__all__ = ["Shader"]

ATLAS_WIDTH = 4096
LEVELS = 5
PADDING = 8  # texels around a chart, so that its neighbours do not bleed into it

LAMP = np.array([-0.45, -0.55, 0.70]) / np.linalg.norm(
    [-0.45, -0.55, 0.70]
)  # unit vector towards it
LAMP_LIGHT, SKY_LIGHT, FLOOR_LIGHT = 0.50, 0.66, 0.40
LAMP_SIZE = 0.15  # at a distance of one; larger gives softer shadows
SHADOW_DISTANCE = 1.2  # metres; surfaces farther away cast no shadow (the lamp is inside the room)
OCCLUSION_DISTANCE = 0.5  # metres; nearer surfaces reduce the ambient light
BAKE_RAYS = 64  # per vertex


class Shader:
    """Textures and light of a scene.

    Attributes:
        chart: the chart that textures each face; within one, neighbouring surface points are
            neighbours in the atlas.
    """

    chart: Int[np.ndarray, " faces"]

    def __init__(self, caster: Caster) -> None:
        self._caster = caster
        spec = caster.spec
        self._texel = np.array([part.texel for part in spec.parts])[caster.face_part]
        self._uv, self.chart, self._atlas = _build_atlas(spec.parts, spec.seed)
        self._moving = caster.face_object > 0
        self._moving_vertices = np.unique(caster.faces[self._moving])
        self._static_light = self._bake()

    def _bake(self) -> Float32[np.ndarray, " vertices"]:
        """Return the light on static vertices; it is 0 on moving ones."""
        caster = self._caster
        vertices, faces = caster.vertices[0], caster.faces[~self._moving]
        static = RayMesh(vertices, faces)
        index = np.unique(faces)
        normals = _vertex_normals(vertices, faces)[index]
        origins = np.repeat(vertices[index] + 2e-3 * normals, BAKE_RAYS, 0)

        rng = np.random.default_rng(caster.spec.seed)
        # The normal plus a random unit vector: cosine-weighted sampling of the hemisphere.
        random = rng.standard_normal((len(index), BAKE_RAYS, 3))
        random /= np.linalg.norm(random, axis=-1, keepdims=True)
        directions = normals[:, None] + 0.999 * random
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        _, distance = static.cast(origins, directions.reshape(-1, 3))
        openness = np.clip(distance.reshape(-1, BAKE_RAYS) / OCCLUSION_DISTANCE, 0, 1)
        ambient = (openness * _ambient(directions[..., 2])).mean(1)

        towards = LAMP + LAMP_SIZE * rng.uniform(-1, 1, directions.shape)
        _, distance = static.cast(origins, towards.reshape(-1, 3))
        lit = (distance.reshape(-1, BAKE_RAYS) > SHADOW_DISTANCE).mean(1)
        light = np.zeros(len(vertices), np.float32)
        light[index] = ambient + LAMP_LIGHT * lit * np.maximum(normals @ LAMP, 0)
        return light

    def light(self, frame: int) -> Float32[np.ndarray, " vertices"]:
        """Return the light on every vertex in a frame."""
        caster, index = self._caster, self._moving_vertices
        normals = _vertex_normals(caster.vertices[frame], caster.faces[self._moving])[index]
        light = self._static_light.copy()
        light[index] = _ambient(normals[:, 2]) + LAMP_LIGHT * np.maximum(normals @ LAMP, 0)
        return light

    def surface(
        self, points: SurfacePoints, light: Float[np.ndarray, " vertices"]
    ) -> Float32[np.ndarray, "points 3"]:
        """Return the input of `colours` for surface points.

        Args:
            points: surface points; no face may be -1.
            light: of `light(frame)`.

        Returns:
            x and y in the atlas (texels of level 0), and brightness.
        """
        corners = self._caster.faces[points.face]
        weights = points.weights.astype(np.float32)
        result = np.empty((len(points), 3), np.float32)
        result[:, :2] = (weights[:, None] @ self._uv[points.face])[:, 0]
        result[:, 2] = (light[corners] * weights).sum(-1)
        return result

    def colours(
        self, surface: Float32[np.ndarray, "height width 3"], level: Int[np.ndarray, "height width"]
    ) -> Float32[np.ndarray, "height width 3"]:
        """Return the colours, from 0 to 255, of samples given as `surface` and their mip levels."""
        import cv2

        shrink = np.float32(0.5) ** np.arange(LEVELS, dtype=np.float32)
        scale, shift = shrink[level], (_level_offsets() - 0.5).astype(np.float32)[level]
        x, y = surface[..., 0] * scale + shift, surface[..., 1] * scale - np.float32(0.5)
        return cv2.remap(self._atlas, x, y, cv2.INTER_LINEAR) * surface[..., 2:]

    def mip_levels(self, frame: int, camera: Cameras, samples: int) -> Int[np.ndarray, " faces"]:
        """Return the mip level whose texels are about as large as a sample on each face.

        Args:
            frame: frame of the scene.
            camera: one camera.
            samples: samples per pixel along each axis.
        """
        caster = self._caster
        centres = caster.vertices[frame][caster.faces].mean(1) - camera.centres[0]
        distance = np.linalg.norm(centres, axis=-1)
        normals = caster.face_normals(frame, np.arange(len(caster.faces)))
        cosine = np.abs((centres * normals).sum(-1))
        cosine /= np.maximum(distance * np.linalg.norm(normals, axis=-1), 1e-12)
        # The geometric mean of the two sides of a foreshortened sample.
        footprint = distance / camera.intrinsics[0, 0, 0] / samples / np.sqrt(cosine + 0.02)
        return np.clip(np.rint(np.log2(footprint / self._texel)), 0, LEVELS - 1).astype(int)


def _ambient(up: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return the light from a direction whose unit vector has this z: floor below, sky above."""
    return FLOOR_LIGHT + (SKY_LIGHT - FLOOR_LIGHT) * (0.5 + 0.5 * up)


def _vertex_normals(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Return unit normals of vertices, faces weighted by area; 0 where there is no face."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normals = np.repeat(np.cross(b - a, c - a), 3, 0)
    index, count = faces.reshape(-1), len(vertices)
    total = np.stack([np.bincount(index, normals[:, i], count) for i in range(3)], -1)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-20)


# Image axes (u right, v down) of a chart seen from outside, by the axis closest to its normals.
_CHART_AXES = {
    "+x": ((0, 1, 0), (0, 0, -1)),
    "-x": ((0, -1, 0), (0, 0, -1)),
    "+y": ((-1, 0, 0), (0, 0, -1)),
    "-y": ((1, 0, 0), (0, 0, -1)),
    "+z": ((1, 0, 0), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 1, 0)),
}


def _build_atlas(
    parts: Sequence[Part], seed: int
) -> tuple[
    Float32[np.ndarray, "faces 3 2"],
    Int[np.ndarray, " faces"],
    UInt8[np.ndarray, "height width 3"],
]:
    """Texture all parts.

    Returns:
        uv: atlas position of each face corner, texels of level 0.
        chart: index of the chart that textures each face.
        atlas: all levels side by side.
    """
    uv, owner, charts = [], [], []
    for i, part in enumerate(parts):
        vertices, faces = part.shape.vertices, part.shape.faces
        a, b, c = np.moveaxis(vertices[faces], 1, 0)
        normals = np.cross(b - a, c - a)
        axis = np.abs(normals).argmax(1)
        positive = np.take_along_axis(normals, axis[:, None], 1)[:, 0] > 0
        part_uv = np.zeros((len(faces), 3, 2))
        part_owner = np.zeros(len(faces), int)
        for j, (side, axes) in enumerate(_CHART_AXES.items()):
            chosen = (axis == "xyz".index(side[1])) & (positive == (side[0] == "+"))
            if not chosen.any():
                continue
            flat = vertices[faces[chosen]] @ np.array(axes, np.float64).T / part.texel
            low = flat.min((0, 1))
            width, height = (np.ceil(flat.max((0, 1)) - low).astype(int) + 1).tolist()
            # Each chart has its own seed, so that changing one part does not change the others.
            rng = np.random.default_rng([seed, i, j])
            texture = part.sides.get(side, part.material)(height, width, rng)
            part_uv[chosen] = flat - low
            part_owner[chosen] = len(charts)
            charts.append(texture)
        uv.append(part_uv)
        owner.append(part_owner)

    corners, height = _pack([chart.shape[:2] for chart in charts])
    level = np.zeros((height, ATLAS_WIDTH, 3), np.uint8)
    for chart, (top, left) in zip(charts, corners, strict=True):
        block = np.pad(chart, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="edge")
        rows, columns = block.shape[:2]
        level[top : top + rows, left : left + columns] = np.rint(255 * block).astype(np.uint8)
    origins = np.array([(left, top) for top, left in corners]) + PADDING
    chart_of_face = np.concatenate(owner)
    atlas_uv = np.concatenate(uv) + 0.5 + origins[chart_of_face][:, None]
    return atlas_uv.astype(np.float32), chart_of_face, _mip_pyramid(level)


def _pack(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """Pack rectangles (height, width) with their padding in rows, tallest first.

    Returns:
        The (top, left) corner of each, and the total height, a multiple of the coarsest texel.
    """
    corners = [(0, 0)] * len(sizes)
    top = left = row_height = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i][0]):
        height, width = (size + 2 * PADDING for size in sizes[i])
        if left + width > ATLAS_WIDTH:
            top, left, row_height = top + row_height, 0, 0
        corners[i] = (top, left)
        left += width
        row_height = max(row_height, height)
    coarsest = 2 ** (LEVELS - 1)
    return corners, -(-(top + row_height) // coarsest) * coarsest


def _level_offsets() -> Int[np.ndarray, " levels"]:
    """Return the column at which each level begins in the atlas."""
    widths = [ATLAS_WIDTH >> level for level in range(LEVELS)]
    return np.r_[0, np.cumsum(widths)[:-1]]


def _mip_pyramid(
    image: UInt8[np.ndarray, "height width 3"],
) -> UInt8[np.ndarray, "height atlas_width 3"]:
    """Concatenate an image and its mip levels, each half the size of the one before."""
    import cv2

    height, width = image.shape[:2]
    levels = [image]
    for level in range(1, LEVELS):
        smaller = cv2.resize(image, (width >> level, height >> level), interpolation=cv2.INTER_AREA)
        levels.append(np.pad(smaller, ((0, height - len(smaller)), (0, 0), (0, 0))))
    return np.concatenate(levels, 1)
