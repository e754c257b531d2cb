"""Object motion for a robot: 6-DoF trajectories at 100 Hz in the world of the input cameras.

python examples/object_motion.py scene_dir out
"""

import sys
from pathlib import Path

import numpy as np

import msdyn


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    for label, world_from_object in sequence.poses().items():
        steps = np.linalg.norm(np.diff(world_from_object[:, :3, 3], axis=0), axis=1)
        fastest = max(steps / np.diff(sequence.timeline.seconds))
        print(f"object {label}: {steps.sum():.3f} along its path, maximum speed {fastest:.3f}/s")
        # The motion since the first frame: a gripper anywhere on the object would follow it.
        since_start = world_from_object @ np.linalg.inv(world_from_object[0])
        print(np.round(since_start[-1], 3))
    print(f"wrote {sequence.export('objects', Path(out) / 'objects', fps=100.0)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
