"""`mjcf` and `urdf`: objects as rigid bodies with joints, for physics simulators."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Real

from msdyn.errors import InputError, MissingExtraError
from msdyn.export.manifest import manifest
from msdyn.export.meshes import BodyMesh, body_mesh
from msdyn.export.simulator_world import sim_from_world
from msdyn.geometry import (
    Joint,
    Rigid,
    Similarity,
    TriangleMesh,
    convex_parts,
    hull_mesh,
    import_open3d,
)
from msdyn.io import Link, LinkJoint, write_mjcf, write_obj, write_urdf, wxyz
from msdyn.progress import track
from msdyn.sequence import (
    ArticulatedObject,
    Body,
    GaussianSequence,
    PartSelection,
    articulated_objects,
)
from msdyn.writing import write_json

__all__ = ["SimulationOptions", "export_simulation"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulationOptions:
    """How objects become bodies.

    Attributes:
        units_per_metre: units of the world in a metre; None for 1, with a warning where the world
            is not metric.
        up: "auto", "camera", or three numbers, a direction of the world.
        floor: whether the model has a floor (MJCF).
        joints: whether objects are divided into bodies.
        tolerance_px: within which groups of Gaussians are one body.
        triangles: per body.
    """

    units_per_metre: float | None = None
    up: str = "auto"
    floor: bool = True
    joints: bool = True
    tolerance_px: float = 2.0
    triangles: int = 4000


@dataclass(frozen=True)
class _Placed:
    """A body in the simulator's world.

    Attributes:
        name: of the body.
        body: in the world of the sequence.
        parent: index of the body that carries it, or None.
        mesh: in the world of the sequence.
        joint: in the simulator's world; None without a parent.
        motion: [T] relative to the canonical frame, in the simulator's world.
        origin: [3] of its own frame, canonical, in the simulator's world.
    """

    name: str
    label: int
    body: Body
    parent: int | None
    mesh: BodyMesh
    joint: Joint | None
    motion: Rigid[np.ndarray]
    origin: Float[np.ndarray, " 3"]

    @property
    def poses(self) -> Rigid[np.ndarray]:
        """[T] `world_from_body`, with the axes of the world at the canonical frame."""
        return self.motion @ Rigid(np.eye(3), self.origin)

    def vertices(self, world: Similarity, mesh: TriangleMesh) -> Float[np.ndarray, "vertices 3"]:
        """Return the vertices of a canonical mesh in the frame of the body, metres."""
        return world.apply(mesh.vertices) - self.origin


def export_simulation(
    sequence: GaussianSequence,
    out: Path,
    times: Real[np.ndarray, " times"],
    what: PartSelection | None = None,
    options: SimulationOptions | None = None,
    *,
    format: Literal["mjcf", "urdf"] = "mjcf",
) -> list[Path]:
    """Write a folder with a model, meshes and `manifest.json`; return the files.

    The simulator's world is in metres with z up; `sim_from_world` in the manifest leads there from
    the world of the input cameras.

    Args:
        sequence: the fit.
        out: folder.
        times: normalised, of the positions in the manifest. The key frame is the canonical frame,
            or the time if there is only one.
        what: the part of the sequence; levels and objects are used.
        options: how objects become bodies.
        format: "mjcf" writes `scene.xml` with all objects, "urdf" a file per object.

    Raises:
        InputError: no moving object is left to export.
        MissingExtraError: neither open3d nor trimesh with scikit-image is installed.
    """
    what, options = what or PartSelection(), options or SimulationOptions()
    labels = what.labels(sequence)
    if not (sequence.objects if labels is None else labels):
        raise InputError(f"{format}: expected at least one moving object, got none")
    (out / "manifest.json").unlink(missing_ok=True)
    clip = np.arange(len(sequence.timeline), dtype=float)
    wanted = sequence.timeline.frame_positions(times)
    key_frame = wanted[0] if len(wanted) == 1 else float(sequence.canonical_frame)
    frames = np.unique(np.concatenate([clip, wanted, [key_frame]]))
    _tell_missing()
    found = articulated_objects(
        sequence,
        frames,
        levels=what.num_levels(sequence),
        labels=labels,
        tolerance_px=options.tolerance_px,
        joints=options.joints,
    )
    meshes = [
        [body_mesh(sequence, body.index, frames, body.motion, faces=options.triangles)
         for body in thing.bodies]
        for thing in track(found, "meshes", unit="object")
    ]  # fmt: skip
    _tell_methods(meshes)
    key = int(np.searchsorted(frames, key_frame))
    vertices = np.concatenate(
        [
            body.motion[key].apply(mesh.mesh.vertices)
            for thing, row in zip(found, meshes, strict=True)
            for body, mesh in zip(thing.bodies, row, strict=True)
        ]
    )
    world, ground = sim_from_world(
        sequence, vertices, units_per_metre=options.units_per_metre, up=options.up
    )
    bodies = _placed(found, meshes, world)
    links, files = _links(bodies, world, out, key)
    rows = np.searchsorted(frames, wanted)
    if format == "mjcf":
        model = [out / "scene.xml"]
        write_mjcf(
            model[0], links, name=out.name or "scene", key=_positions(bodies, key),
            floor=options.floor,
        )  # fmt: skip
    else:
        model = _write_urdfs(out, bodies, links)
    content = manifest(sequence, times, [*model, *files], format)
    content["files"] = [path.relative_to(out).as_posix() for path in (*model, *files)]
    content["conventions"] = (
        "simulator's world in metres, z up; x_sim = sim_from_world @ x_world, with the scale in "
        "its 3x3 block; body frames have the simulator's axes at the canonical frame; axis and "
        "point of a joint in the simulator's world at the canonical frame; radians; quaternions "
        "wxyz"
    )
    matrix = np.eye(4)
    matrix[:3, :3] = world.scale * world.rotation
    matrix[:3, 3] = world.translation
    content |= {
        "units_per_metre": 1 / world.scale,
        "sim_from_world": matrix.tolist(),
        "up": ground,
        "key_frame": float(key_frame),
        "bodies": [_described(body, rows) for body in bodies],
    }
    if format == "mjcf":
        content["qpos"] = [_positions(bodies, int(row)).tolist() for row in rows]
    write_json(out / "manifest.json", content)
    return [*model, *files, out / "manifest.json"]


def _tell_missing() -> None:
    try:
        import_open3d("sim")
    except MissingExtraError as error:
        _log.warning("%s; meshes are filled voxels without it", error)


def _tell_methods(meshes: list[list[BodyMesh]]) -> None:
    """Say how many meshes are no surface reconstruction."""
    methods = [mesh.method for row in meshes for mesh in row]
    if hulls := methods.count("hull"):
        _log.warning(
            "meshes: %d of %d bodies are closed by their convex hull only", hulls, len(methods)
        )


def _placed(
    found: list[ArticulatedObject], meshes: list[list[BodyMesh]], world: Similarity
) -> list[_Placed]:
    """Return the bodies, each tree in depth-first order, parents first."""
    placed: list[_Placed] = []
    for thing, row in zip(found, meshes, strict=True):
        children: dict[int | None, list[int]] = {}
        for number, body in enumerate(thing.bodies):
            children.setdefault(body.parent, []).append(number)
        places: dict[int, int] = {}
        pending = [*children.get(None, [])]
        free: list[int] = []
        while pending or free:
            number = pending.pop() if pending else free.pop()
            body = thing.bodies[number]
            joint = body.joint.transformed(world) if body.joint is not None else None
            motion, parent = world.conjugate(body.motion), None
            origin = world.apply(body.moments.mean)
            if joint is not None and joint.kind != "free" and body.parent is not None:
                parent = places[body.parent]
                motion = placed[parent].motion @ joint.motions
                origin = joint.rest.inverse().apply(joint.point[None])[0]
            name = f"object_{thing.label}" + (f"_body_{number}" if number else "")
            places[number] = len(placed)
            placed.append(
                _Placed(name, thing.label, body, parent, row[number], joint, motion, origin)
            )
            for child in reversed(children.get(number, [])):
                other = thing.bodies[child].joint
                (free if other is not None and other.kind == "free" else pending).append(child)
    return placed


def _links(
    bodies: list[_Placed], world: Similarity, out: Path, key: int
) -> tuple[list[Link], list[Path]]:
    """Write the meshes; return the links and the files."""
    links: list[Link] = []
    files: list[Path] = []
    for body in track(bodies, "convex parts", unit="link"):
        whole = body.mesh.mesh
        local = TriangleMesh(body.vertices(world, whole), whole.faces)
        names = [f"meshes/{body.name}.obj"]
        write_obj(out / names[0], local.vertices, local.faces)
        for number, part in enumerate(_collisions(local)):
            names.append(f"meshes/{body.name}_collision_{number}.obj")
            write_obj(out / names[-1], part.vertices, part.faces)
        files += [out / name for name in names]
        pose = body.poses[key]
        joint = None
        if body.parent is not None and body.joint is not None:
            pose = _rest(body, bodies[body.parent])
            if body.joint.kind in ("hinge", "slider", "ball"):
                axis = body.joint.rest.rotation.T @ body.joint.axis
                joint = LinkJoint(body.joint.kind, axis, body.joint.range)
        volume, centre, inertia = _mass_properties(local)
        links.append(
            Link(
                body.name,
                body.parent,
                pose.translation,
                pose.rotation,
                joint,
                names[0],
                tuple(names[1:]),
                body.mesh.colour,
                volume,
                centre,
                inertia,
            )  # fmt: skip
        )
    return links, files


def _rest(body: _Placed, parent: _Placed) -> Rigid[np.ndarray]:
    """Return `parent_from_body` at position 0 of the joint."""
    assert body.joint is not None
    placed = body.joint.rest @ Rigid(np.eye(3), body.origin)
    return Rigid(np.eye(3), -parent.origin) @ placed


def _collisions(mesh: TriangleMesh) -> list[TriangleMesh]:
    """Return convex parts, or the convex hull where coacd is missing or finds none."""
    try:
        parts = convex_parts(mesh)
    except MissingExtraError as error:
        _log.warning("%s; the convex hull is the only collision mesh", error)
        parts = []
    return parts or [hull_mesh(mesh.vertices, 1e-3)]


def _mass_properties(
    mesh: TriangleMesh,
) -> tuple[float, Float[np.ndarray, " 3"], Float[np.ndarray, "3 3"]]:
    """Return volume, centre of volume, and inertia about it for a density of one.

    Sums over the tetrahedra of the faces and the origin.
    """
    corners = mesh.vertices[mesh.faces]  # [F, 3, 3]
    sixth = np.linalg.det(corners) / 6
    volume = float(sixth.sum())
    total = corners.sum(1)
    centre = np.einsum("f,fd->d", sixth, total) / 4 / volume
    # The integral of x x^T over a tetrahedron with one corner at the origin: V/20 (s s^T + sum).
    second = np.einsum("f,fi,fj->ij", sixth, total, total)
    second = (second + np.einsum("f,fki,fkj->ij", sixth, corners, corners)) / 20
    second -= volume * np.outer(centre, centre)
    return volume, centre, np.trace(second) * np.eye(3) - second


def _positions(bodies: list[_Placed], row: int) -> Float[np.ndarray, " positions"]:
    """Return MuJoCo's `qpos` at one time."""
    values: list[np.ndarray] = []
    for body in bodies:
        joint = body.joint
        if body.parent is None or joint is None:
            pose = body.poses[row]
            values += [pose.translation, wxyz(pose.rotation)]
        elif joint.kind in ("hinge", "slider"):
            values.append(joint.positions[row : row + 1])
        elif joint.kind == "ball":
            values.append(wxyz(joint.rest.rotation.T @ joint.motions.rotation[row]))
    return np.concatenate(values)


def _write_urdfs(out: Path, bodies: list[_Placed], links: list[Link]) -> list[Path]:
    """Write one file per tree of links, named after its root."""
    paths = []
    for root in (k for k, body in enumerate(bodies) if body.parent is None):
        members = [root]
        for number, body in enumerate(bodies):
            if body.parent in members:
                members.append(number)
        tree = []
        for number in members:
            parent = links[number].parent
            tree.append(
                replace(links[number], parent=None if parent is None else members.index(parent))
            )
        path = out / f"{bodies[root].name}.urdf"
        write_urdf(path, tree, name=bodies[root].name)
        paths.append(path)
    return paths


def _described(body: _Placed, rows: Int[np.ndarray, " times"] | Sequence[int]) -> dict[str, Any]:
    """Return the manifest's entry of a body."""
    poses = body.poses[np.asarray(rows)]
    entry: dict[str, Any] = {
        "name": body.name,
        "object": body.label,
        "parent": body.parent,
        "gaussians": len(body.body.index),
        "rigidity_error": body.body.error,
        "mesh": {
            "method": body.mesh.method,
            "triangles": len(body.mesh.mesh.faces),
            "observed": round(body.mesh.observed, 3),
        },
        "world_from_body": poses.matrix.tolist(),
        "joint": None,
    }
    joint = body.joint
    if joint is not None:
        entry["joint"] = {
            "kind": joint.kind,
            "axis": joint.axis.tolist(),
            "point": joint.point.tolist(),
            "range": list(joint.range),
            "positions": joint.positions[np.asarray(rows)].tolist(),
            "residual": joint.residual,
            "residual_degrees": joint.residual_degrees,
        }
    return entry
