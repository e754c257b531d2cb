"""Colour of surface points: textures in one atlas, and light from fixed sources.

Every part is textured by projecting it, at rest, along the axis its faces look along most: six
charts a part at most, each with its own texture of a set number of texels a metre. All charts lie
in one atlas, with its mip levels side by side in one image, so that all samples of an image are
looked up at once.

Light comes from above, from below and from one lamp. Movers cast no shadow, so that colours stay as
stable as the surfaces' normals; the light on static surfaces, with the soft shadows of static
surfaces on one another, is computed once for every vertex.
"""

from collections.abc import Sequence

import numpy as np

from msdyn.geometry import Cameras
from msdyn.synthetic.raycast import Caster, RayMesh, SurfacePoints
from msdyn.synthetic.spec import Part

__all__ = ["Shader"]

ATLAS_WIDTH = 4096
LEVELS = 5
PADDING = 8  # texels around a chart, so that its neighbours do not bleed in

LAMP = np.array([-0.45, -0.55, 0.70]) / np.linalg.norm([-0.45, -0.55, 0.70])  # direction to it
LAMP_LIGHT, SKY_LIGHT, FLOOR_LIGHT = 0.50, 0.66, 0.40
LAMP_SIZE = 0.15  # as seen from one metre: how soft shadows are
SHADOW_REACH = 1.2  # metres: what is farther away casts none (the lamp hangs inside the room)
OCCLUSION_REACH = 0.5  # metres: what is nearer takes away ambient light
BAKE_RAYS = 64


class Shader:
    """Textures and light of a scene.

    Attributes:
        chart: [F] the chart that textures each face; within one, neighbouring points of the surface
            are neighbours in the atlas.
    """

    def __init__(self, caster: Caster) -> None:
        self._caster = caster
        spec = caster.spec
        self._texel = np.array([part.texel for part in spec.parts])[caster.face_part]
        self._uv, self.chart, self._atlas = _build_atlas(spec.parts, spec.seed)
        self._moving = caster.face_object > 0
        self._moving_vertices = np.unique(caster.faces[self._moving])
        self._static_light = self._bake()

    def _bake(self) -> np.ndarray:
        """Return the light [V] on static vertices; it is 0 on movers."""
        caster = self._caster
        vertices, faces = caster.vertices[0], caster.faces[~self._moving]
        static = RayMesh(vertices, faces)
        index = np.unique(faces)
        normals = _vertex_normals(vertices, faces)[index]
        origins = np.repeat(vertices[index] + 2e-3 * normals, BAKE_RAYS, 0)

        rng = np.random.default_rng(caster.spec.seed)
        # A normal plus a random unit vector: directions in proportion to the light they bring.
        random = rng.standard_normal((len(index), BAKE_RAYS, 3))
        random /= np.linalg.norm(random, axis=-1, keepdims=True)
        directions = normals[:, None] + 0.999 * random
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        _, reach = static.cast(origins, directions.reshape(-1, 3))
        openness = np.clip(reach.reshape(-1, BAKE_RAYS) / OCCLUSION_REACH, 0, 1)
        ambient = (openness * _ambient(directions[..., 2])).mean(1)

        towards = LAMP + LAMP_SIZE * rng.uniform(-1, 1, directions.shape)
        _, reach = static.cast(origins, towards.reshape(-1, 3))
        lit = (reach.reshape(-1, BAKE_RAYS) > SHADOW_REACH).mean(1)
        light = np.zeros(len(vertices), np.float32)
        light[index] = ambient + LAMP_LIGHT * lit * np.maximum(normals @ LAMP, 0)
        return light

    def light(self, frame: int) -> np.ndarray:
        """Return the light [V] float32 on every vertex in a frame."""
        caster, index = self._caster, self._moving_vertices
        normals = _vertex_normals(caster.vertices[frame], caster.faces[self._moving])[index]
        light = self._static_light.copy()
        light[index] = _ambient(normals[:, 2]) + LAMP_LIGHT * np.maximum(normals @ LAMP, 0)
        return light

    def surface(self, points: SurfacePoints, light: np.ndarray) -> np.ndarray:
        """Return what `colours` needs to know of surface points.

        Args:
            points: surface points, none of them missing.
            light: of `light(frame)`.

        Returns:
            [N, 3] float32: x and y in the atlas (texels of level 0), brightness.
        """
        corners = self._caster.faces[points.face]
        weights = points.weights.astype(np.float32)
        result = np.empty((len(points), 3), np.float32)
        result[:, :2] = (weights[:, None] @ self._uv[points.face])[:, 0]
        result[:, 2] = (light[corners] * weights).sum(-1)
        return result

    def colours(self, surface: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Look up colours.

        Args:
            surface: [H, W, 3] of `surface`.
            level: [H, W] mip levels.

        Returns:
            [H, W, 3] float32, scale 0 to 255.
        """
        import cv2

        shrink = np.float32(0.5) ** np.arange(LEVELS, dtype=np.float32)
        scale, shift = shrink[level], (_level_offsets() - 0.5).astype(np.float32)[level]
        x, y = surface[..., 0] * scale + shift, surface[..., 1] * scale - np.float32(0.5)
        return cv2.remap(self._atlas, x, y, cv2.INTER_LINEAR) * surface[..., 2:]

    def mip_levels(self, frame: int, camera: Cameras, samples: int) -> np.ndarray:
        """Return the atlas level [F] whose texels are about as large as a sample on the face.

        Args:
            frame: frame of the scene.
            camera: one camera.
            samples: samples a pixel along each axis.
        """
        caster = self._caster
        centres = caster.vertices[frame][caster.faces].mean(1) - camera.centres[0]
        distance = np.linalg.norm(centres, axis=-1)
        normals = caster.face_normals(frame, np.arange(len(caster.faces)))
        cosine = np.abs((centres * normals).sum(-1))
        cosine /= np.maximum(distance * np.linalg.norm(normals, axis=-1), 1e-12)
        # The geometric mean of a slanted sample's two sides.
        footprint = distance / camera.intrinsics[0, 0, 0] / samples / np.sqrt(cosine + 0.02)
        return np.clip(np.rint(np.log2(footprint / self._texel)), 0, LEVELS - 1).astype(int)


def _ambient(up: np.ndarray) -> np.ndarray:
    """Return the light from a direction whose unit vector has this z: floor below, sky above."""
    return FLOOR_LIGHT + (SKY_LIGHT - FLOOR_LIGHT) * (0.5 + 0.5 * up)


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals [V, 3] of vertices, faces weighted by area; 0 where there is no face."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normals = np.repeat(np.cross(b - a, c - a), 3, 0)
    index, count = faces.reshape(-1), len(vertices)
    total = np.stack([np.bincount(index, normals[:, i], count) for i in range(3)], -1)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-20)


# Image axes (u right, v down) of a chart seen from outside, by the axis its faces look along.
_CHART_AXES = {
    "+x": ((0, 1, 0), (0, 0, -1)),
    "-x": ((0, -1, 0), (0, 0, -1)),
    "+y": ((-1, 0, 0), (0, 0, -1)),
    "-y": ((1, 0, 0), (0, 0, -1)),
    "+z": ((1, 0, 0), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 1, 0)),
}


def _build_atlas(parts: Sequence[Part], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture all parts.

    Returns:
        uv: [F, 3, 2] float32 atlas position of each face corner, texels of level 0.
        chart: [F] index of the chart that textures each face.
        atlas: [H, W, 3] uint8, all levels side by side.
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
            # Each chart has a seed of its own: changing one part leaves the others as they are.
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
    """Place rectangles (height, width) with their padding in rows, tallest first.

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


def _level_offsets() -> np.ndarray:
    """Return the column [LEVELS] at which each level begins in the atlas."""
    widths = [ATLAS_WIDTH >> level for level in range(LEVELS)]
    return np.r_[0, np.cumsum(widths)[:-1]]


def _mip_pyramid(image: np.ndarray) -> np.ndarray:
    """Put an image and its halves, quarters, ... side by side."""
    import cv2

    height, width = image.shape[:2]
    levels = [image]
    for level in range(1, LEVELS):
        smaller = cv2.resize(image, (width >> level, height >> level), interpolation=cv2.INTER_AREA)
        levels.append(np.pad(smaller, ((0, height - len(smaller)), (0, 0), (0, 0))))
    return np.concatenate(levels, 1)
