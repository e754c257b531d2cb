"""Tracks and masks on a real clip with true masks."""

import imageio.v3 as iio
import numpy as np
import pytest
from moving import iou, write_scene
from msdyn.preprocess.masks import MotionMasks
from msdyn.preprocess.tracks import FlowTracks
from PIL import Image

from msdyn.io import read_video

FRAMES = 24
WIDTH, HEIGHT = 428, 240


@pytest.mark.slow
def test_camel_at_half_size(shared, tmp_path):
    clips = shared / "clips"
    images = [
        np.array(Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BOX))
        for image in read_video(clips / "camel.mp4", range(FRAMES))
    ]
    scene = write_scene(tmp_path / "s", np.stack(images))
    tracks, quality = FlowTracks().track(scene)
    assert quality["mean_life_frames"] > 8
    masks, quality = MotionMasks().segment(scene, tracks, None)
    overlaps = []
    for i, mask in enumerate(masks):
        truth = iio.imread(clips / "camel_masks" / f"{i:05d}.png")
        truth = np.array(Image.fromarray(truth).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        overlaps.append(iou(mask == 1, truth > 0))
    assert not quality["needs_cameras"]
    # Measured: 0.86 mean, 0.79 lowest.
    print(np.mean(overlaps), min(overlaps))
    assert np.mean(overlaps) > 0.8 and min(overlaps) > 0.7
