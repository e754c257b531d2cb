"""Random scenes: a room, objects that stand and one to three that move, a hand-held camera.

A scene is drawn until it meets `_acceptable`: it is drawn again with the next number of an attempt,
so that the scene of an index is always the same. What is drawn depends neither on the number of
frames nor on the image size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.indices import evenly_spaced
from msdyn.synthetic.animate import handheld, keyframe_curve, view_from
from msdyn.synthetic.covisibility import covisible_pixels
from msdyn.synthetic.random_objects import MOVERS, random_material, random_shape
from msdyn.synthetic.raycast import Caster, SurfacePoints, pixel_centres, rays_through
from msdyn.synthetic.shapes import box, room, slab
from msdyn.synthetic.spec import Part, SceneSpec
from msdyn.synthetic.studio import FLOOR

__all__ = ["FRAMES", "RANDOM", "draw_scene", "make_random_scene", "refusal"]

RANDOM = "random-"
FRAMES = 36
_ATTEMPTS = 100
# At this size and number of frames a scene is checked.
_CHECKED = (8, 40, 30)
# Metres between a camera and the nearest vertex of an object.
_CLEARANCE = 0.3
# Mean share of an object in the input's images and a held-out camera's, and share in most frames.
_COVERED, _COVERED_HELD_OUT, _COVERED_ALWAYS = 0.025, 0.015, 0.008
_COVISIBLE = 0.55
# Metres that an object's points move at least, and image widths per frame (of 36) at most.
_EXTENT, _SPEED = 0.05, 0.04


def make_random_scene(index: int, frames: int, width: int, height: int, seed: int) -> SceneSpec:
    """Return a random scene.

    Args:
        index: which one.
        frames, width, height: of the clip.
        seed: of the textures and of the sampling of tracks, not of what is in the scene.
    """
    return draw_scene(index, _attempt(index), frames, width, height, seed)


@lru_cache(maxsize=64)
def _attempt(index: int) -> int:
    """Return the number of the first attempt that is acceptable."""
    for attempt in range(_ATTEMPTS):
        if not refusal(draw_scene(index, attempt, *_CHECKED, seed=0)):
            return attempt
    raise InputError(
        f"scene {RANDOM}{index}: none of {_ATTEMPTS} drawn scenes is acceptable, take another one"
    )


def draw_scene(
    index: int, attempt: int, frames: int, width: int, height: int, seed: int
) -> SceneSpec:
    """Return one drawn scene, acceptable or not."""
    rng = np.random.default_rng([2025, index, attempt])
    on_table = bool(rng.random() < 0.7)
    movers, parts = _movers(frames, rng), _room(on_table, rng)
    parts += _props(movers, on_table, rng) + movers
    cameras, views = _cameras(frames, width, height, rng)
    seed = 10_000 * index + seed
    return SceneSpec(f"{RANDOM}{index}", tuple(parts), cameras, views, seed=seed)


def _movers(frames: int, rng: np.random.Generator) -> list[Part]:
    """Return one to three moving objects, side by side; a cloth is behind the others."""
    count = int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    columns = {1: [0.0], 2: [-0.27, 0.29], 3: [-0.5, 0.0, 0.5]}[count]
    kinds = rng.permutation(list(MOVERS))[:count]
    parts = []
    for instance, (x, kind) in enumerate(zip(columns, kinds, strict=True), 1):
        y = rng.uniform(0.2, 0.4) if kind == "cloth" else rng.uniform(-0.15, 0.2)
        at = (x + rng.uniform(-0.05, 0.05), float(y))
        parts += MOVERS[str(kind)](instance, at, frames, rng)
    return parts


def _room(on_table: bool, rng: np.random.Generator) -> list[Part]:
    """Return a closed room with a table, or with its floor at z = 0, and a cluttered wall."""
    ground = FLOOR if on_table else 0.0
    style = {"coarse": 1.8, "contrast": 0.5}
    walls = room(5.0, 4.4, 2.7, 0.12).moved((0, -0.6, ground))
    sides = {"+z": random_material(rng, **style), "-z": random_material(rng, **style)}
    wall = random_material(rng, **style)
    parts = [Part("room", walls, wall, sides=sides, texel=0.004)]
    top = random_material(rng, **style)
    if on_table:
        x, y = rng.uniform(1.9, 2.3), rng.uniform(1.2, 1.45)
        parts.append(Part("table", slab(x, y, 0.04, 0.03).moved((0, 0.15, -0.04)), top))
        for number, (sx, sy) in enumerate([(-1, -1), (1, -1), (-1, 1), (1, 1)]):
            leg = box(0.07, 0.07, -FLOOR - 0.04)
            place = (0.45 * x * sx, 0.15 + 0.45 * y * sy, FLOOR)
            parts.append(Part(f"leg{number}", leg.moved(place), top, texel=0.004))
    mat = slab(rng.uniform(0.9, 1.4), rng.uniform(0.6, 0.9), 0.004, 0.04)
    place = (rng.uniform(-0.2, 0.2), rng.uniform(0, 0.2), 0)
    parts.append(Part("mat", mat.moved(place, rng.uniform(-15, 15)), random_material(rng, **style)))
    # Pictures on the wall at y = 1.6, and furniture before it.
    for number, x in enumerate(np.linspace(-1.5, 1.5, int(rng.integers(3, 6)))):
        wide, high = rng.uniform(0.3, 0.75), rng.uniform(0.3, 0.7)
        shape = box(wide, rng.uniform(0.02, 0.06), high)
        place = (x + rng.uniform(-0.15, 0.15), 1.57, rng.uniform(0.2, 0.6))
        parts.append(
            Part(f"picture{number}", shape.moved(place), random_material(rng), texel=0.003)
        )
    for number in range(int(rng.integers(1, 4))):
        wide, deep, high = rng.uniform((0.3, 0.3, 0.5), (0.7, 0.7, 1.1)).tolist()
        shape = box(wide, deep, high)
        place = (rng.uniform(-1.7, 1.7), rng.uniform(1.15, 1.3), ground)
        furniture = shape.moved(place, rng.uniform(-8, 8))
        parts.append(Part(f"furniture{number}", furniture, random_material(rng), texel=0.004))
    return parts


def _props(movers: list[Part], on_table: bool, rng: np.random.Generator) -> list[Part]:
    """Return static objects that stand where nothing moves."""
    taken = [_box_over_time([p for p in movers if p.object == i]) for i in _objects(movers)]
    reach = (0.85, 0.6) if on_table else (1.2, 0.9)
    parts: list[Part] = []
    wanted = int(rng.integers(4, 9))
    for _ in range(40 * wanted):
        if len(parts) == wanted:
            break
        x, y = rng.uniform(-reach[0], reach[0]), rng.uniform(-0.35, reach[1])
        # Small ones in front, where they occlude something now and then.
        size = rng.uniform(0.1, 0.16) if y < 0 else rng.uniform(0.14, 0.34)
        shape = random_shape(rng, size).moved((x, y, 0.0), rng.uniform(0, 90))
        own = np.stack([shape.vertices.min(0) - 0.02, shape.vertices.max(0) + 0.02])
        if not any(_overlap(own, other) for other in taken):
            taken.append(own)
            parts.append(Part(f"prop{len(parts)}", shape, random_material(rng)))
    return parts


def _objects(parts: list[Part]) -> list[int]:
    return sorted({part.object for part in parts} - {0})


def _frames_of(part: Part) -> int:
    return 1 if part.world_from_link is None else len(part.world_from_link)


def _box_over_time(parts: list[Part]) -> Float[np.ndarray, "2 3"]:
    """Return the least and the greatest coordinates of parts at sixteen times at most."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in parts:
        count = _frames_of(part)
        for frame in evenly_spaced(count, 16):
            vertices = part.vertices(int(frame))
            low, high = np.minimum(low, vertices.min(0)), np.maximum(high, vertices.max(0))
    return np.stack([low, high])


def _overlap(first: Float[np.ndarray, "2 3"], second: Float[np.ndarray, "2 3"]) -> bool:
    return bool(((first[0] < second[1]) & (second[0] < first[1])).all())


def _cameras(
    frames: int, width: int, height: int, rng: np.random.Generator
) -> tuple[Cameras, Mapping[str, Cameras]]:
    """Return a hand-held camera on one of three kinds of path, and two static ones beside it."""
    focus = np.array([rng.uniform(-0.05, 0.05), rng.uniform(0, 0.1), rng.uniform(0.15, 0.2)])
    kind = str(rng.choice(["orbit", "dolly", "pan"]))
    distance, level = rng.uniform(0.95, 1.15), rng.uniform(0.3, 0.5)
    middle, way = rng.uniform(-20, 20), rng.choice([-1, 1])
    near, sweep = np.zeros(3), np.zeros(3)
    if kind == "orbit":
        degrees = middle + way * rng.uniform(11, 16) * np.array([-1, 0.1, 1])
    elif kind == "dolly":
        degrees = middle + way * rng.uniform(6, 9) * np.array([-1, 0, 1])
        near = rng.uniform(0.12, 0.2) * np.array([-1, 0, 1]) * rng.choice([-1, 1])
    else:
        degrees = middle + way * rng.uniform(7, 10) * np.array([-1, 0.2, 1])
        sweep = way * rng.uniform(0.08, 0.16) * np.array([-1, 1, -0.5])
    angle = np.radians(degrees)
    heights = level + rng.uniform(-0.05, 0.05, 3)
    centres = np.column_stack(
        [
            focus[0] + (distance + near) * np.sin(angle),
            focus[1] - (distance + near) * np.cos(angle),
            focus[2] + heights,
        ]
    )
    times = (0.0, 0.5, 1.0)
    path = keyframe_curve(frames, *[(t, *c) for t, c in zip(times, centres.tolist(), strict=True)])
    side = np.array([np.cos(np.radians(middle)), np.sin(np.radians(middle)), 0])
    aims = focus + sweep[:, None] * side
    target = keyframe_curve(frames, *[(t, *a) for t, a in zip(times, aims.tolist(), strict=True)])
    cameras = handheld(path, target, rng.uniform(0.9, 1.05), (width, height), rng)
    left, right = -rng.uniform(15, 30), rng.uniform(15, 30)
    return cameras, {
        "left": view_from(cameras, focus, left),
        "right": view_from(cameras, focus, right),
    }


def refusal(spec: SceneSpec) -> str:
    """Return why a drawn scene is not taken, "" if it is.

    A camera is in or near an object; two objects meet, or one is in the table; an object hardly
    moves, is too fast or is too small in the image; too few pixels of a held-out camera are visible
    to the input.
    """
    caster = Caster(spec)
    owner = np.zeros(caster.vertices.shape[1], int)
    owner[caster.faces] = caster.face_object[:, None]
    enclosing = len(spec.parts[0].shape.vertices)  # the room
    centres = np.concatenate([spec.cameras.centres, *(v.centres for v in spec.views.values())])
    boxes: dict[int, list[Float[np.ndarray, "2 3"]]] = {i: [] for i in spec.objects}
    for vertices in caster.vertices:
        for centre in centres:
            if np.linalg.norm(vertices[enclosing:] - centre, axis=-1).min() < _CLEARANCE:
                return "a camera is near an object"
        for instance in spec.objects:
            own = vertices[owner == instance]
            boxes[instance].append(np.stack([own.min(0), own.max(0)]))
            if own[:, 2].min() < -1e-3:
                return "an object is in the table"
    for instance in spec.objects:
        others = [other for other in spec.objects if other > instance]
        pairs = [zip(boxes[instance], boxes[other], strict=True) for other in others]
        if any(_overlap(a, b) for pair in pairs for a, b in pair):
            return "two objects meet"
    return _refused_motion(caster, owner) or _refused_images(caster)


def _refused_motion(caster: Caster, owner: Int[np.ndarray, " vertices"]) -> str:
    """Return whether an object hardly moves or moves too fast in the image."""
    spec = caster.spec
    for instance in spec.objects:
        own = caster.vertices[:, owner == instance]
        if np.median(np.linalg.norm(np.ptp(own, axis=0), axis=-1)) < _EXTENT:
            return "an object hardly moves"
        distance = np.linalg.norm(own.mean(1) - spec.cameras.centres, axis=-1).min()
        step = np.linalg.norm(np.diff(own, axis=0), axis=-1) * (spec.frames - 1) / (FRAMES - 1)
        focal = spec.cameras.intrinsics[..., 0, 0].mean() / spec.width
        if np.percentile(step, 95) * focal / distance > _SPEED:
            return "an object is too fast"
    return ""


def _refused_images(caster: Caster) -> str:
    """Return whether an object is too small in the images, or too little is covisible."""
    spec = caster.spec
    shown, points = _seen(caster, None)
    for instance in spec.objects:
        share = (shown == instance).mean(1)
        if share.mean() < _COVERED or np.mean(share > _COVERED_ALWAYS) < 0.7:
            return "an object is small in the images"
    for name in spec.views:
        shown, points = _seen(caster, name)
        for instance in spec.objects:
            if (shown == instance).mean() < _COVERED_HELD_OUT:
                return "an object is small in a held-out camera"
        if covisible_pixels(caster, points, shown == 0).mean() < _COVISIBLE:
            return "a held-out camera shows too much that the input does not"
    return ""


def _seen(
    caster: Caster, name: str | None
) -> tuple[Int[np.ndarray, "frames pixels"], SurfacePoints]:
    """Return the object at each pixel of a held-out camera (None: the input), and the points."""
    spec, cast = caster.spec, []
    for frame in range(spec.frames):
        camera = spec.cameras[frame] if name is None else spec.views[name]
        rays = rays_through(camera, pixel_centres(camera))
        cast.append(caster.mesh(frame).cast(camera.centres[0], rays)[0])
    faces = np.stack([points.face for points in cast])
    weights = np.concatenate([points.weights for points in cast])
    return caster.face_object[faces], SurfacePoints(faces.reshape(-1), weights)
