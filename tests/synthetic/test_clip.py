"""The demo's clip on disk."""

import imageio.v3 as iio
import numpy as np
import pytest

from msdyn.scene import Scene, check_scene, read_cameras, read_depth
from msdyn.synthetic import write_clip


def psnr(error):
    return 10 * np.log10(255**2 / np.mean(error**2))


@pytest.mark.reliability
def test_a_clip_is_a_video_with_a_recording_and_its_ground_truth(boxes, tmp_path):
    folder = write_clip(boxes, tmp_path / "demo")
    assert sorted(p.name for p in folder.iterdir()) == ["clip.mp4", "recording", "truth"]

    frames = iio.imread(folder / "clip.mp4", plugin="pyav")
    assert frames.shape == (12, 72, 96, 3)
    error = frames.astype(float) - boxes.clip.images
    # H.264 stores colour at half resolution: compare brightness, and colours of blocks of 4x4 px.
    assert psnr(error @ [0.299, 0.587, 0.114]) > 33  # worst seen: 35.8
    assert psnr(error.reshape(12, 18, 4, 24, 4, 3).mean((2, 4))) > 35  # worst seen: 38.2
    meta = iio.immeta(folder / "clip.mp4", plugin="pyav")
    assert meta["codec"] == "h264" and meta["fps"] == boxes.spec.fps

    cameras = read_cameras(folder / "recording" / "cameras.json")
    shift = np.linalg.norm(cameras.centres - boxes.clip.cameras.centres, axis=1)
    assert 0 < shift.max() < 0.01
    depth = read_depth(folder / "recording" / "depth" / "00011.npy", (72, 96))
    known = depth > 0
    assert 0.8 < known.mean() < 0.95
    ratio = depth[known] / boxes.clip.depths[11][known]
    assert 0.001 < np.abs(ratio - 1).mean() < 0.04

    assert not check_scene(Scene(folder / "truth")).warnings
