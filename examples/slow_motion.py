"""Slow motion: a video with four images per frame along the smoothed input path.

python examples/slow_motion.py scene_dir out
"""

import sys
from pathlib import Path

import numpy as np

import msdyn
from msdyn.io import write_video


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    count = 4 * (len(sequence.timeline) - 1) + 1
    cameras = msdyn.make_path("stabilised", sequence.cameras, count)
    images = msdyn.render_images(sequence, cameras, np.linspace(0, 1, count))
    path = Path(out) / "slow.mp4"
    write_video(path, (image.rgb8 for image in images), sequence.timeline.fps)
    print(f"{count} images in {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
