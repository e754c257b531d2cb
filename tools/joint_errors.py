"""Measure the hinge and the meshes of a fitted laptop against the synthetic truth.

    python tools/joint_errors.py --out out/laptop --json joints.json

Renders the scene `articulated` (24 frames of 192x144), writes it with sensor priors, fits it with
the preset quick, and finds the bodies and the joint as `msdyn-export --format mjcf` does. A fit
that is there is used again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, WIDTH, HEIGHT = 24, 192, 144
BOXES = {
    "laptop/base": ((-0.26, -0.18, 0.0), (0.26, 0.18, 0.03)),
    "laptop/lid": ((-0.26, -0.01, 0.0), (0.26, 0.01, 0.34)),
}
"""Corners of the links, metres, in their own coordinates."""


def fitted(out: Path) -> Any:
    """Return the sequence fitted to the scene."""
    from msdyn.fit import fit_scene, preset
    from msdyn.scene import Scene
    from msdyn.sequence import load_sequence
    from msdyn.synthetic import make_scene, render_truth, write_priors

    if not (out / "fit" / "sequence.safetensors").is_file():
        spec = make_scene("articulated", frames=FRAMES, width=WIDTH, height=HEIGHT)
        write_priors(render_truth(spec), out, level="sensor")
        from dataclasses import replace

        fit_scene(Scene(out), replace(preset("quick"), scene=out))
    return load_sequence(out)


def degrees_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(np.arccos(min(1.0, abs(float(first @ second))))))


def measure(sequence: Any, tolerance_px: float) -> dict[str, Any]:
    """Return the errors of the hinge, in degrees and metres, and of the meshes, in metres."""
    from msdyn.export.meshes import body_mesh
    from msdyn.geometry import Rigid, invert_transforms, transform_points
    from msdyn.sequence import articulated_objects
    from msdyn.synthetic import link_motions, make_scene

    frame = sequence.canonical_frame
    spec = make_scene("articulated", frames=FRAMES, width=WIDTH, height=HEIGHT)
    found = link_motions(spec, reference=frame)
    motions = {name: Rigid.from_matrix(found[name]) for name in BOXES}
    poses = {part.link: part.world_from_link for part in spec.parts if part.link in BOXES}
    hinge = poses["laptop/lid"][frame]
    axis, point = hinge[:3, 0], hinge[:3, 3]
    frames = np.arange(float(FRAMES))
    (thing,) = articulated_objects(sequence, frames, tolerance_px=tolerance_px)
    rows: list[dict[str, Any]] = []
    for body in thing.bodies:
        link = min(BOXES, key=lambda name: np.abs(body.motion.matrix - motions[name].matrix).max())
        mesh = body_mesh(sequence, body.index, frames, body.motion)
        local = transform_points(invert_transforms(poses[link][frame]), mesh.mesh.vertices)
        low, high = np.array(BOXES[link])
        outside = np.linalg.norm(local - local.clip(low, high), axis=1)
        inside = np.minimum(local - low, high - local).min(1).clip(0)
        row: dict[str, Any] = {
            "link": link,
            "gaussians": len(body.index),
            "mesh_method": mesh.method,
            "mesh_error": float(np.maximum(outside, inside).mean()),
            "volume": mesh.mesh.volume,
            "true_volume": float(np.prod(high - low)),
        }
        joint = body.joint
        if joint is not None:
            apart = joint.point - point
            other = "laptop/lid" if link == "laptop/base" else "laptop/base"
            relative = (motions[other].inverse() @ motions[link]).rotation
            sine = relative[:, [2, 0, 1], [1, 2, 0]] - relative[:, [1, 2, 0], [2, 0, 1]]
            about = np.arctan2(sine @ joint.axis / 2, (np.trace(relative, 0, 1, 2) - 1) / 2)
            difference = joint.positions - about
            row |= {
                "kind": joint.kind,
                "axis_degrees": degrees_between(joint.axis, axis),
                "point_distance": float(np.linalg.norm(apart - apart @ axis * axis)),
                "angle_degrees": float(np.degrees((difference - difference.mean()).std())),
                "range_degrees": np.degrees(joint.range).tolist(),
                "true_range_degrees": np.degrees([about.min(), about.max()]).tolist(),
                "residual": joint.residual,
                "residual_degrees": joint.residual_degrees,
            }
        rows.append(row)
    return {"tolerance_px": tolerance_px, "bodies": rows}


def main() -> None:
    from msdyn.evaluate.stamp import code_stamp
    from msdyn.writing import write_json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tolerance-px", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    args = parser.parse_args()
    sequence = fitted(args.out)
    results = [measure(sequence, tolerance) for tolerance in args.tolerance_px]
    for result in results:
        print(f"--body-tolerance-px {result['tolerance_px']:g}")
        for row in result["bodies"]:
            print("  ", {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    if args.json:
        write_json(args.json, {"results": results, "stamp": code_stamp()})


if __name__ == "__main__":
    main()
