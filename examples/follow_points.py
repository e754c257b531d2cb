"""Point tracks: 2D and 3D trajectories of the surface points at given pixels.

python examples/follow_points.py scene_dir out
"""

import sys
from pathlib import Path

import numpy as np

import msdyn
from msdyn.render import grid_points


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    frame = sequence.canonical_frame
    tracks = sequence.tracks(grid_points(sequence, step=8), frame)
    moving = tracks.object > 0
    path = np.linalg.norm(np.diff(tracks.xyz[moving], axis=1), axis=-1).sum(1)
    print(f"{moving.sum()} of {len(moving)} points lie on objects, mean path {np.mean(path):.3f}")
    print(f"visible in {tracks.visible[moving].mean():.0%} of the frames")
    written = sequence.export("tracks", Path(out) / "tracks.npz", grid=8)
    print(f"wrote {written}")


if __name__ == "__main__":
    main(*sys.argv[1:])
