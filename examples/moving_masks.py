"""Flow: separate moving objects from camera motion between two times.

python examples/moving_masks.py scene_dir out
"""

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

import msdyn
from msdyn.colours import colour_flow


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    flow = sequence.flow(0.0, 0.5)
    length = np.linalg.norm(flow.xyz, axis=-1)
    print(f"{flow.moving.mean():.0%} of the pixels are moving, by up to {length.max():.3f} in 3D")
    Path(out).mkdir(parents=True, exist_ok=True)
    longest = float(np.linalg.norm(flow.xy, axis=-1).max())
    iio.imwrite(Path(out) / "flow.png", colour_flow(flow.xy, flow.valid, longest))
    iio.imwrite(Path(out) / "moving.png", np.where(flow.moving, 255, 0).astype(np.uint8))


if __name__ == "__main__":
    main(*sys.argv[1:])
