"""The order in which clips are drawn."""

from collections import Counter

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.feedforward.data.datasets import DATASETS, DatasetInfo, dataset_info
from msdyn.feedforward.data.sampler import ClipSampler, permuted


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 1000])
def test_a_permutation_has_each_position_once(length):
    values = [permuted(i, length, b"key") for i in range(length)]
    assert sorted(values) == list(range(length))


def test_permutations_look_random():
    """Correlation of position and image, and of the permutations of two keys, near zero."""
    first = [permuted(i, 2000, b"0/0") for i in range(2000)]
    second = [permuted(i, 2000, b"0/1") for i in range(2000)]
    for a, b in ((range(2000), first), (first, second), (first[1:], first[:-1])):
        assert abs(np.corrcoef(list(a), list(b))[0, 1]) < 0.1


def test_positions_of_a_huge_epoch_are_permuted_without_a_table():
    length = 10**12 + 39
    values = {permuted(i, length, b"key") for i in range(200)}
    assert len(values) == 200 and all(0 <= value < length for value in values)
    assert max(values) > length // 2


def test_an_epoch_draws_each_clip_as_often_as_it_is_repeated():
    repeats = np.array([1, 10, 2, 500])
    sampler = ClipSampler(repeats, seed=3)
    assert sampler.epoch_length == 513
    epochs = [[sampler.clip(513 * epoch + i) for i in range(513)] for epoch in range(2)]
    for epoch in epochs:
        assert Counter(epoch) == dict(enumerate(repeats.tolist()))
    assert epochs[0] != epochs[1]
    other = ClipSampler(repeats, seed=4)
    assert epochs[0] != [other.clip(i) for i in range(513)]
    again = ClipSampler(repeats, seed=3)
    assert [again.clip(i) for i in (700, 3, 3)] == [epochs[1][187], epochs[0][3], epochs[0][3]]


@pytest.mark.parametrize("repeats", [[], [1, 0]])
def test_nothing_to_draw(repeats):
    with pytest.raises(InputError):
        ClipSampler(np.array(repeats, np.int64), 0)


def test_the_data_sets_are_those_of_the_paper():
    """Table 1, and the weights of the released code."""
    repeats = {name: info.repeat for name, info in DATASETS.items()}
    assert repeats == {
        "realestate10k": 1,
        "tartanair": 100,
        "matrixcity": 10,
        "pointodyssey": 1000,
        "dynamicreplica": 100,
        "spring": 2000,
        "vkitti2": 500,
        "stereo4d": 1,
    }
    static = {name for name, info in DATASETS.items() if info.static}
    assert static == {"realestate10k", "tartanair", "matrixcity"}
    assert dataset_info("Dynamic_Replica") is DATASETS["dynamicreplica"]
    assert dataset_info("our-own") == DatasetInfo(1, 1.0, 1.0, 2, False, None)
