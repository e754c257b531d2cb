"""Tracks and masks on a real clip with true masks; clips that cannot give depth are told from those
that can."""

import imageio.v3 as iio
import numpy as np
import pytest
from moving import iou, write_scene
from msdyn.preprocess.masks import MotionMasks
from msdyn.preprocess.tracks import FlowTracks
from PIL import Image

from msdyn.cli.preprocess import main
from msdyn.io import read_video
from msdyn.scene import STATIC, Scene

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
    assert np.mean(overlaps) > 0.8 and min(overlaps) > 0.7


@pytest.mark.slow
def test_a_turning_camera_is_told_in_one_line_and_accepted_on_demand(shared, tmp_path, capsys):
    arguments = [str(shared / "clips" / "camel.mp4"), "--out", str(tmp_path / "camel")]
    arguments += ["--max-frames", "24", "--long-side", "256"]
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "the camera turns but hardly moves" in err
    for cure in ("depth model or sensor", "--depth files", "--accept-poor"):
        assert cure in err
    words = [line.split()[0] for line in out.splitlines()]
    assert words[:4] == ["frames", "tracks", "masks", "cameras"] and "depth" not in words
    scene = Scene(tmp_path / "camel")
    assert len(np.unique(scene.masks())) == 2 and len(scene.tracks) > 1000
    assert main([*arguments, "--accept-poor"]) == 0
    assert main(["--check", str(tmp_path / "camel")]) == 0
    depth, mask = Scene(tmp_path / "camel").depth(5), scene.mask(5)
    assert depth[mask == STATIC].min() > depth[mask != STATIC].max()


@pytest.mark.slow
def test_an_ambiguous_focal_length_is_told_in_one_line(shared, tmp_path, capsys):
    arguments = [str(shared / "clips" / "duck.mp4"), "--out", str(tmp_path / "duck")]
    arguments += ["--max-frames", "13", "--long-side", "256", "--masks", "none"]
    assert main(arguments) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "the focal length is ambiguous" in err
    for cure in ("known cameras", "depth model or sensor", "--accept-poor"):
        assert cure in err
