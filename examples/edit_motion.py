"""Edit the motion: slow one object down to half its speed, remove another, render the result.

python examples/edit_motion.py scene_dir out
"""

import sys
from pathlib import Path

import numpy as np

import msdyn
from msdyn.io import write_video
from msdyn.sequence import retime_object, without_objects


def main(scene: str, out: str) -> None:
    sequence = msdyn.load_sequence(scene)
    first, *others = sequence.objects
    # At key frame i, the object takes its pose of frame i / 2.
    keys = sequence.motion.key_frames.numpy()
    edited = retime_object(sequence, first, keys / 2)
    if others:
        edited = without_objects(edited, others[-1:])
    times = np.linspace(0, 1, len(sequence.timeline))
    images = msdyn.render_images(edited, sequence.cameras, times)
    write_video(Path(out) / "edited.mp4", (image.rgb8 for image in images), 10.0)
    msdyn.save_sequence(edited, Path(out) / "edited.safetensors")
    print(f"object {first} is slower, object {others[-1:]} is removed: {Path(out) / 'edited.mp4'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
