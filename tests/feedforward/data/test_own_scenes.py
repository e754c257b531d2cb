"""Clips of our own scenes."""

import imageio.v3 as iio
import numpy as np
import pytest
from clips import two_boxes

from msdyn.errors import InputError
from msdyn.feedforward.batches import MOTION_KINDS
from msdyn.feedforward.data import ClipBatchOptions, ClipLibrary, ClipWriter
from msdyn.feedforward.data.own_scenes import random_clips, scene_clip
from msdyn.scene import frame_path, write_mask
from msdyn.synthetic import write_truth


def test_random_clips_depend_on_their_seed_alone():
    first = list(random_clips(3, 3, 16, seed=5))
    assert [clip.name for clip in first] == ["000005", "000006", "000007"]
    (again,) = random_clips(1, 3, 16, seed=7)
    for index in range(6):
        np.testing.assert_array_equal(first[2].frame(index).image, again.frame(index).image)
    assert not np.array_equal(first[0].frame(0).image, first[1].frame(0).image)
    assert again.target is not None and again.target.tolist() == [False] * 3 + [True] * 3
    assert again.frame(0).depth is not None and again.frame(4).depth is None
    # The second camera is beside the first.
    assert not np.allclose(again.world_from_cam[0], again.world_from_cam[3])


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_truth(two_boxes(4, 48, 36), tmp_path_factory.mktemp("scenes") / "boxes")


def test_a_scene_directory_is_a_clip_with_tracks(scene, tmp_path):
    with ClipWriter(tmp_path) as writer:
        writer.add(scene_clip(scene))
    clip = ClipLibrary(tmp_path).clip("msdyn/boxes")
    assert (clip.entry.inputs, clip.entry.targets, clip.entry.motion) == (4, 8, "tracks")
    for frame in range(4):
        points, visible = clip.tracks(frame)
        assert visible.sum() > 100
        camera = clip.world_from_cam[frame]
        local = (points[visible] - camera[:3, 3]) @ camera[:3, :3]
        place = (
            local[:, :2] / local[:, 2:] * clip.intrinsics[frame, :2] + clip.intrinsics[frame, 2:]
        )
        column, row = (place * [48, 36]).astype(int).T
        depth = clip.depth(frame)[row.clip(0, 35), column.clip(0, 47)]
        assert np.median(np.abs(depth / local[:, 2] - 1)) < 0.01
    assert not clip.tracks(4)[1].any()


def test_the_motion_of_the_boxes_reaches_the_batch(scene, tmp_path):
    with ClipWriter(tmp_path) as writer:
        writer.add(scene_clip(scene, "two"))
    options = ClipBatchOptions(scenes=1, frames=(4, 4), long_side=48, aspect=(1.5, 1.5), queries=1)
    batch = ClipLibrary(tmp_path).batch(options, seed=0, number=0)
    assert batch.kind is not None and int(batch.kind[0]) == MOTION_KINDS.index("tracks")
    length = batch.motion(0)[batch.known(0)].norm(dim=-1)
    assert len(length) > 200
    assert (length < 1e-5).float().mean() > 0.3 and (length > 0.02).float().mean() > 0.05
    assert batch.moving.any() and not batch.moving.all()


def test_without_tracks_the_masks_tell_what_is_known(tmp_path):
    scene = write_truth(two_boxes(4, 48, 36), tmp_path / "boxes")
    for view in (scene / "views").iterdir():
        (view / "tracks3d.npz").unlink()
    assert scene_clip(scene).motion == "unknown"
    for frame in range(4):
        write_mask(scene, frame, np.zeros((36, 48), np.uint8))
    assert scene_clip(scene).motion == "static"
    frame_path(scene / "masks", 2, ".png").unlink()
    assert scene_clip(scene).motion == "unknown"
    iio.imwrite(frame_path(scene / "masks", 2, ".png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(InputError, match="masks/00002.png: expected"):
        scene_clip(scene)


def test_the_name_of_a_folder_must_do_for_a_clip(scene):
    with pytest.raises(InputError, match="expected letters, digits"):
        scene_clip(scene, "two boxes")
