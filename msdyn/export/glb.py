"""`glb`: a glTF 2.0 file of Gaussians (KHR_gaussian_splatting) that move as rigid parts.

Reference: Khronos Group, "KHR_gaussian_splatting", kernel `ellipse`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.spatial.transform import Rotation

from msdyn.errors import InputError
from msdyn.export.splat_parts import SplatParts, Splats, splat_parts
from msdyn.geometry import SH_C0, Cameras, Rigid, project, transform_points
from msdyn.io import Gltf
from msdyn.progress import write_line
from msdyn.sequence import GaussianSequence, PartSelection

__all__ = ["export_glb"]

_EXTENSION = "KHR_gaussian_splatting"
_HIDDEN = 1e-6
"""Scale of Gaussians that are not shown: the extension asks for positive scales."""
_KEY_SHARE = 0.2
"""Of the tolerance: how far from their place points may be drawn because a key is left out."""
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])


def export_glb(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    *,
    tolerance_px: float = 0.5,
    baked: bool = False,
    lives: int = 8,
) -> list[Path]:
    """Write Gaussians as points with KHR_gaussian_splatting; return the file.

    Static Gaussians are one mesh. Each rigid part is a node, whose pose is animated, with a mesh.
    The clip's camera is an animated camera. All are below the node `world`, which rotates OpenCV's
    axes to those of glTF. What does not exist, or is baked for another time, is in nodes of a
    negligible scale behind the cameras.

    Args:
        sequence: the fit.
        out: file name, `.glb`.
        times: normalised, increasing.
        what: the part of the sequence to export; everything by default.
        tolerance_px: error in pixels up to which Gaussians are one rigid part; a fifth of it may
            be added by keys that are left out.
        baked: store what bends more at each time, instead of moving it with its finest part.
        lives: most meshes of a part, for Gaussians with different life spans.

    Raises:
        InputError: times that do not increase, no Gaussians, or a file above 4 GiB.
    """
    if (np.diff(times) <= 0).any():
        raise InputError("glb: expected increasing times, as --times 0:1:60")
    parts = splat_parts(
        sequence, times, what or PartSelection(), tolerance_px=tolerance_px, baked=baked
    )
    write_line(f"glb: {parts.summary}")
    frames = sequence.timeline.frame_positions(times)
    cameras = sequence.cameras.interpolated(frames)
    duration = float(sequence.timeline.seconds[-1] - sequence.timeline.seconds[0])
    extras = {
        "axes": "below the node `world`: the world of the input cameras, OpenCV's axes (x right, y "
        "down, z forward)",
        "world_units": sequence.world_units,
        "duration": duration,
        "fps": sequence.timeline.fps,
        "tolerance_px": tolerance_px,
        "error_px": parts.error_px,
        "mean_error_px": parts.mean_error_px,
    }
    gltf = Gltf((_EXTENSION,), extras)
    world = gltf.node(name="world", rotation=[1.0, 0.0, 0.0, 0.0])
    scene = _Scene(gltf, world, np.asarray(times, float) * duration, cameras, tolerance_px, lives)
    _add_splats(scene, parts)
    if not scene.meshes:
        raise InputError("glb: expected Gaussians that are visible at these times, got none")
    _add_camera(scene)
    gltf.write(out)
    return [out]


@dataclass
class _Scene:
    """The document and what its nodes share."""

    gltf: Gltf
    world: int
    seconds: Float[np.ndarray, " times"]
    cameras: Cameras
    tolerance_px: float
    lives: int
    meshes: int = 0
    switches: dict[bytes, int] = field(default_factory=dict)

    def add_mesh(self, parent: int, splats: Splats, **fields: Any) -> None:
        """Add a node with Gaussians."""
        self.gltf.node(parent, mesh=_mesh(self.gltf, splats), **fields)
        self.meshes += 1

    def add_part(
        self,
        parent: int,
        splats: Splats,
        world_from_part: Rigid[np.ndarray],
        keys: Int[np.ndarray, " keys"],
        name: str,
    ) -> None:
        """Add a node with Gaussians and its motion [T], of which some times are kept."""
        translation, rotation = _translation_and_quats(world_from_part)
        node = self.gltf.node(
            parent, name=name, mesh=_mesh(self.gltf, splats), translation=translation[0].tolist(),
            rotation=rotation[0].tolist(),
        )  # fmt: skip
        self.meshes += 1
        self.move(node, world_from_part, keys)

    def keys(self, world_from_part: Rigid[np.ndarray], splats: Splats) -> Int[np.ndarray, " keys"]:
        """Return the times of a motion [T] that must be kept for these Gaussians."""
        low, high = splats.means.min(0), splats.means.max(0)
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), -1).reshape(-1, 3)
        tolerance = _KEY_SHARE * self.tolerance_px
        return _kept_keys(world_from_part, self.seconds, corners, self.cameras, tolerance)

    def move(
        self, node: int, world_from_node: Rigid[np.ndarray], keys: Int[np.ndarray, " keys"]
    ) -> None:
        """Animate the pose of a node at some of the times; not at all if it does not change."""
        translation, rotation = _translation_and_quats(world_from_node[keys])
        times = self.seconds[keys].astype("<f4")
        for path, values in (("translation", translation), ("rotation", rotation)):
            if np.ptp(values, axis=0).max() > 0:
                self.gltf.animate(
                    node, path, self.gltf.accessor(times, bounds=True), self.gltf.accessor(values)
                )

    def switch(self, shown: Bool[np.ndarray, " times"]) -> int:
        """Return the node below which things show at these times and not at the others."""
        if shown.all():
            return self.world
        key = shown.tobytes()
        if key not in self.switches:
            place = _behind(self.cameras)
            changes = np.concatenate([[0], np.flatnonzero(np.diff(shown)) + 1])
            middle = (self.seconds[changes[1:] - 1] + self.seconds[changes[1:]]) / 2
            times = np.concatenate([self.seconds[:1], middle]).astype("<f4")
            on = shown[changes, None]
            values = {
                "scale": np.where(on, 1.0, np.full(3, _HIDDEN)).astype("<f4"),
                "translation": np.where(on, 0.0, place).astype("<f4"),
            }
            node = self.gltf.node(
                self.world,
                name=f"shown_{len(self.switches)}",
                **{path: value[0].tolist() for path, value in values.items()},
            )
            key_times = self.gltf.accessor(times, bounds=True)
            for path, value in values.items():
                self.gltf.animate(node, path, key_times, self.gltf.accessor(value), "STEP")
            self.switches[key] = node
        return self.switches[key]


def _add_splats(scene: _Scene, parts: SplatParts) -> None:
    for shown, own in _by_life(parts.static, scene):
        scene.add_mesh(scene.switch(shown), own, name="static")
    objects: dict[int, int] = {}
    for number, (part, splats) in enumerate(parts.parts):
        name = f"object_{part.label}"
        pose = Rigid.from_matrix(part.world_from_part)
        keys = scene.keys(pose, splats)
        for shown, own in _by_life(splats, scene):
            parent = scene.switch(shown)
            if shown.all():
                if part.label not in objects:
                    objects[part.label] = scene.gltf.node(scene.world, name=name)
                parent = objects[part.label]
            scene.add_part(parent, own, pose, keys, f"{name}_part_{number}")
    for label, rows in parts.baked.items():
        for row, splats in enumerate(rows):
            visible = splats.select(splats.opacities[0] > 0)
            if len(visible):
                shown = np.arange(len(rows)) == row
                scene.add_mesh(scene.switch(shown), visible, name=f"object_{label}_time_{row}")


def _by_life(splats: Splats, scene: _Scene) -> list[tuple[Bool[np.ndarray, " times"], Splats]]:
    """Return groups of Gaussians that exist at about the same times, and these times.

    A Gaussian exists where its opacity is at least half of its largest, which is stored. There are
    at most `scene.lives` groups: the times of a few Gaussians, chosen one after the other so that
    the others, by opacity and area, differ from the nearest of them at the fewest times.
    """
    if not len(splats):
        return []
    largest = splats.opacities.max(0, keepdims=True)
    shown = np.broadcast_to(splats.opacities >= largest / 2, (len(scene.seconds), len(splats)))
    patterns, group = np.unique(shown.T, axis=0, return_inverse=True)
    size = largest[0] * np.sort(splats.scales, axis=1)[:, 1:].prod(1)
    weight = np.bincount(group.ravel(), size, len(patterns))
    lives = patterns.astype(np.float32)
    differ = lives @ (1 - lives.T) + (1 - lives) @ lives.T  # [patterns, patterns] times
    chosen = [int((weight @ differ).argmin())]
    while len(chosen) < min(scene.lives, len(patterns)):
        least = differ[:, chosen].min(1)
        gain = weight @ (least[:, None] - differ).clip(0)
        chosen.append(int(gain.argmax()))
    nearest = differ[:, chosen].argmin(1)[group.ravel()]
    opaque = Splats(splats.means, splats.quats_wxyz, splats.scales, largest, splats.harmonics)
    return [(patterns[row], opaque.select(nearest == i)) for i, row in enumerate(chosen)]


def _mesh(gltf: Gltf, splats: Splats) -> int:
    """Add a mesh of Gaussians, with linear colours (COLOR_0) for viewers without the extension."""
    opacities = splats.opacities[0].clip(0, 1).astype("<f4")
    encoded = (splats.harmonics[:, 0] * SH_C0 + 0.5).clip(0, 1)
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    colours = np.concatenate([linear, opacities[:, None]], axis=1)
    columns = {
        "POSITION": splats.means,
        f"{_EXTENSION}:ROTATION": splats.quats_wxyz[:, [1, 2, 3, 0]],
        f"{_EXTENSION}:SCALE": splats.scales,
        f"{_EXTENSION}:OPACITY": opacities,
    }
    for degree in range(int(splats.harmonics.shape[1] ** 0.5)):
        for order in range(2 * degree + 1):
            name = f"{_EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"
            columns[name] = splats.harmonics[:, degree**2 + order]
    columns = {name: column.astype("<f4") for name, column in columns.items()}
    attributes = gltf.vertices(columns | {"COLOR_0": (colours * 255).round().astype("u1")})
    extension = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    return gltf.points(attributes, {_EXTENSION: extension})


def _add_camera(scene: _Scene) -> None:
    """Add the clip's camera; glTF's look along -z, with y up, through the image centre."""
    cameras, k = scene.cameras, scene.cameras.intrinsics[0]
    fx, fy = float(k[0, 0]), float(k[1, 1])
    camera = scene.gltf.camera(
        type="perspective",
        name="clip",
        perspective={
            "yfov": 2 * float(np.arctan2(cameras.height / 2, fy)),
            "aspectRatio": cameras.width * fy / (cameras.height * fx),
            "znear": 0.01,
        },
        extras={
            "width": cameras.width, "height": cameras.height, "fx": fx, "fy": fy,
            "cx": float(k[0, 2]), "cy": float(k[1, 2]),
        },
    )  # fmt: skip
    pose = Rigid.from_matrix(cameras.world_from_cam)
    pose = Rigid(pose.rotation @ _OPENGL_FROM_OPENCV, pose.translation)
    translation, rotation = _translation_and_quats(pose)
    node = scene.gltf.node(
        scene.world, name="camera", camera=camera, translation=translation[0].tolist(),
        rotation=rotation[0].tolist(),
    )  # fmt: skip
    scene.move(node, pose, np.arange(len(translation)))


def _translation_and_quats(
    pose: Rigid[np.ndarray],
) -> tuple[Float[np.ndarray, "times 3"], Float[np.ndarray, "times 4"]]:
    """Return translations and xyzw quaternions, each on the side of the one before it."""
    quats = Rotation.from_matrix(pose.rotation).as_quat().reshape(-1, 4)
    turns = np.where((quats[1:] * quats[:-1]).sum(1) < 0, -1.0, 1.0)
    quats[1:] *= np.cumprod(turns)[:, None]
    return pose.translation.astype("<f4"), quats.astype("<f4")


def _kept_keys(
    pose: Rigid[np.ndarray],
    seconds: Float[np.ndarray, " times"],
    points: Float[np.ndarray, "points 3"],
    cameras: Cameras,
    tolerance_px: float,
) -> Int[np.ndarray, " keys"]:
    """Return the times to keep so that interpolation draws points of a node where they are.

    Args:
        pose: [T] world from node.
        seconds: of the times.
        points: in the node's axes.
        cameras: [T] in whose pixels the error counts.
        tolerance_px: largest error at a time that is left out.
    """
    true = _pixels(cameras, pose, points)  # [T, P, 2]
    keys, last = [0], len(seconds) - 1
    while keys[-1] < last:
        start, end = keys[-1], keys[-1] + 1
        while end < last:
            inner = np.arange(start + 1, end + 1)
            fraction = (seconds[inner] - seconds[start]) / (seconds[end + 1] - seconds[start])
            ends = (pose[np.full(len(inner), row)] for row in (start, end + 1))
            first, second = ends
            found = _pixels(cameras[inner], first.interpolated(second, fraction), points)
            # A point that no camera sees has no error.
            error = np.nan_to_num(np.linalg.norm(found - true[inner], axis=-1), nan=0.0)
            if error.max(initial=0.0) > tolerance_px:
                break
            end += 1
        keys.append(end)
    return np.array(keys)


def _pixels(
    cameras: Cameras, pose: Rigid[np.ndarray], points: Float[np.ndarray, "points 3"]
) -> Float[np.ndarray, "times points 2"]:
    """Return where points are drawn; NaN behind the camera."""
    in_camera = transform_points(cameras.cam_from_world, pose.apply(points[None]))
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = project(cameras.intrinsics, in_camera)
    return np.where(in_camera[..., 2:] > 1e-6, pixels, np.nan)


def _behind(cameras: Cameras) -> Float[np.ndarray, " 3"]:
    """Return a place behind all cameras, if there is one: it is sought along their mean axis."""
    centre = cameras.centres.mean(0)
    forward = cameras.cam_from_world[:, 2, :3].mean(0)
    distance = max(float(np.linalg.norm(np.ptp(cameras.centres, axis=0))), 1.0)
    place = centre - distance * forward
    for _ in range(10):
        if (transform_points(cameras.cam_from_world, place[None])[..., 2] < 0).all():
            break
        distance *= 2
        place = centre - distance * forward
    return place
