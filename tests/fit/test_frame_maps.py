"""Maps that are read frame by frame, and the median of them all."""

import gc
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msdyn.fit.frame_maps import FrameMaps, MapFile, positive_median


def filed(maps, folder=None):
    file = MapFile(maps.shape[1:], maps.dtype.type, folder)
    for values in maps:
        file.append(values)
    return file


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 3), (1, 1, 1)])
def test_maps_are_read_as_they_were_written(dtype, shape, tmp_path):
    maps = np.random.default_rng(0).uniform(0, 255, shape).astype(dtype)
    file = filed(maps, tmp_path / "a folder" / "that is not there yet")
    assert file.shape == maps.shape and len(file) == len(maps) and not list(tmp_path.iterdir())
    for frame in range(len(maps)):
        np.testing.assert_array_equal(file[frame], maps[frame])
    np.testing.assert_array_equal(file[-1], maps[-1])
    np.testing.assert_array_equal(np.stack(list(file)), maps)
    for outside in (len(maps), -len(maps) - 1):
        with pytest.raises(IndexError):
            file[outside]
    with pytest.raises(ValueError, match="expected a map"):
        file.append(np.zeros((9, 9), dtype))


def test_tensors_of_frames_and_of_one_frame():
    maps = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    given_maps = FrameMaps(filed(maps), torch.device("cpu"))
    assert given_maps.shape == (5, 2, 3)
    np.testing.assert_array_equal(given_maps[3].numpy(), maps[3])
    np.testing.assert_array_equal(given_maps[np.array([4, 0])].numpy(), maps[[4, 0]])
    given_maps[2].zero_()  # the file stays as it is
    np.testing.assert_array_equal(given_maps.numpy(2), maps[2])


def test_changed_maps_leave_the_others():
    maps = np.ones((4, 2, 3), np.float32)
    before = FrameMaps(filed(maps), torch.device("cpu"))
    after = before.changed(lambda frame, values: values * frame)
    for frame in range(4):
        assert (after.numpy(frame) == frame).all() and (before.numpy(frame) == 1).all()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are not listed here")
def test_the_space_is_given_back_with_the_object():
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    gc.collect()  # what other tests have left
    before = open_files()
    file = filed(np.zeros((2, 3, 3), np.uint8))
    assert open_files() == before + 1
    del file
    gc.collect()
    assert open_files() == before


@given(seed=st.integers(0, 2**31), frames=st.integers(1, 4), spread=st.sampled_from([0, 1e-6, 9]))
def test_the_median_is_that_of_numpy(seed, frames, spread):
    rng = np.random.default_rng(seed)
    maps = np.exp(rng.normal(0, spread, (frames, 3, 4))).astype(np.float32)
    maps[rng.random(maps.shape) < rng.choice([0.0, 0.5, 1.0])] = 0
    positive = maps[maps > 0]
    found = positive_median(filed(maps))
    assert found == positive_median(maps)
    assert found == (float(np.median(positive)) if positive.size else None)
