"""The episode of a robot: what is held moves with the hand, and states say where the hand is."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msdyn.geometry import invert_transforms
from msdyn.io import LeRobotDataset, column_values, depth_codes, read_depth_segment
from msdyn.synthetic import (
    make_manipulation,
    render_truth,
    without_views,
    write_manipulations,
)
from msdyn.synthetic.manipulation import BLOCK, HAND


@pytest.fixture(scope="module")
def episode():
    return make_manipulation(seed=3)


def test_states_are_the_poses_of_the_hand(episode):
    palm = episode.poses[HAND]
    assert episode.state[:, :3] == pytest.approx(palm[:, :3, 3], abs=1e-6)
    rotations = Rotation.from_quat(episode.state[:, 3:7]).as_matrix()
    assert rotations == pytest.approx(palm[:, :3, :3], abs=1e-6)
    assert (episode.action[:-1] == episode.state[1:]).all()
    assert (episode.action[-1] == episode.state[-1]).all()


def test_the_block_is_carried_and_put_down(episode):
    block, palm = episode.poses[BLOCK], episode.poses[HAND]
    height = block[:, 2, 3]
    assert height[0] == pytest.approx(height[-1]) and height.max() > height[0] + 0.1
    assert np.linalg.norm(block[-1, :2, 3] - block[0, :2, 3]) > 0.35
    held = height > height[0] + 1e-6
    relative = (invert_transforms(palm) @ block)[held]
    assert relative == pytest.approx(np.broadcast_to(relative[0], relative.shape), abs=1e-9)
    width = episode.state[held, 7]
    assert width == pytest.approx(np.full(len(width), 0.16), abs=1e-6)
    step = np.linalg.norm(np.diff(block[:, :3, 3], axis=0), axis=1)
    assert step.max() < 0.1  # no jump when it is taken or released


def test_episodes_of_other_seeds_differ(episode):
    other = make_manipulation(seed=4)
    assert np.abs(other.poses[BLOCK] - episode.poses[BLOCK]).max() > 0.01
    again = make_manipulation(seed=3)
    assert (again.state == episode.state).all()


@pytest.mark.reliability
def test_the_dataset_holds_the_truth(tmp_path):
    episode = without_views(make_manipulation(frames=4, width=48, height=36, seed=1))
    truth = render_truth(episode.spec, samples=1)
    dataset = LeRobotDataset(write_manipulations(tmp_path / "set", [(episode, truth)] * 2))
    assert len(dataset) == 2 and dataset.cameras == ["observation.images.front"]
    row = dataset.episode(1)
    table = dataset.frames(row)
    assert (column_values(table, "observation.state") == episode.state).all()
    poses = column_values(table, "observation.extrinsics.front")
    expected = invert_transforms(episode.spec.cameras.cam_from_world)
    assert poses == pytest.approx(expected, abs=1e-6)
    name = "observation.images.front_depth"
    codes = depth_codes(dataset.info.features[name], name)
    depth = np.stack(list(read_depth_segment(dataset.video_segment(row, name), codes)))
    assert np.abs(depth - truth.clip.depths).max() < 0.002
