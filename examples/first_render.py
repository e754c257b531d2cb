"""First render: one image of a fitted scene, from a novel camera, at a time between frames.

python examples/first_render.py scene_dir out
"""

import sys
from pathlib import Path

import imageio.v3 as iio

import msdyn


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    print(sequence)
    camera = msdyn.make_path("orbit", sequence.cameras, 60)[7]
    image = sequence.render(camera, time=0.4)
    Path(out).mkdir(parents=True, exist_ok=True)
    iio.imwrite(Path(out) / "render.png", image.rgb8)
    near, far = image.depth[image.alpha > 0.5].min(), image.depth.max()
    print(f"{image.rgb.shape[1]}x{image.rgb.shape[0]}, depth from {near:.2f} to {far:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
