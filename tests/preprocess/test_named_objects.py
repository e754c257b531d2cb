"""Objects that a network finds by phrases: labels, names, overlaps; and its operations on masks."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from msdyn.preprocess.masks import named_objects
from msdyn.preprocess.masks.mask_operations import MaskOperations, own_operations
from msdyn.preprocess.masks.named_objects import Found, NamedObjects, index_mask

SIZE = (12, 20)


def box(x0, x1, y0=2, y1=10, logit=5.0):
    """Logits [h, w] of a box."""
    image = np.full(SIZE, -5.0)
    image[y0:y1, x0:x1] = logit
    return image


def collected(phrases, phrase_of, frames):
    """NamedObjects of frames, each a dict from the network's number to logits."""
    objects = NamedObjects(phrases, dict(phrase_of))
    for t, frame in enumerate(frames):
        logits = np.stack(list(frame.values())) if frame else np.zeros((0, *SIZE))
        objects.add(t, Found(list(frame), logits))
    return objects


def test_labels_follow_the_phrases_and_then_appearance():
    phrase_of = {0: 1, 3: 0, 4: 1, 7: 2}
    frames = [{0: box(0, 5)}, {3: box(6, 9), 0: box(1, 6)}, {4: box(12, 18), 3: box(6, 9)}]
    frames.append({7: np.full(SIZE, -1.0)})  # empty: it is not visible
    objects = collected(("mug", "cup", "gripper"), phrase_of, frames)
    assert objects.labels() == {3: 1, 0: 2, 4: 3}
    assert objects.names() == {1: "mug", 2: "cup 1", 3: "cup 2"}
    assert objects.unmatched() == ["gripper"]
    assert list(objects.same()) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_two_phrases_find_is_one_object_of_the_first(order):
    """In whatever order the network numbers them."""
    cup, mug, other = order
    frames = [
        {cup: box(0, 6), mug: box(0, 7), other: box(10, 16)},
        {cup: box(1, 7), mug: box(1, 7), other: box(11, 17)},
        {cup: box(2, 8)},  # one of them is lost
    ]
    objects = collected(("cup", "red mug"), {cup: 0, mug: 1, other: 0}, frames)
    labels = objects.labels()
    assert labels[cup] == labels[mug] != labels[other] and set(labels.values()) == {1, 2}
    assert set(objects.names().values()) == {"cup 1", "cup 2"}
    assert list(objects.same()) == [("red mug", "cup")] and objects.unmatched() == []


def test_objects_that_only_pass_one_another_stay_apart():
    moving = [{0: box(0, 6), 1: box(12, 18)}, {0: box(6, 12), 1: box(6, 12)}]
    moving += [{0: box(12, 18), 1: box(0, 6)}]
    assert collected(("a", "b"), {0: 0, 1: 1}, moving).labels() == {0: 1, 1: 2}
    # Nor are those one of which follows the other in time.
    after = [{0: box(0, 6)}, {1: box(0, 6)}]
    assert collected(("a", "b"), {0: 0, 1: 1}, after).labels() == {0: 1, 1: 2}


def test_of_too_many_objects_the_largest_are_kept(monkeypatch):
    monkeypatch.setattr(named_objects, "MOST_OBJECTS", 4)
    logits = np.full((6, *SIZE), -1.0)
    for k in range(6):
        logits[k, : 1 + (k >= 2), k] = 1.0  # the first two are smaller
    objects = NamedObjects(["dot"], dict.fromkeys(range(6), 0))
    objects.add(0, Found(list(range(6)), logits))
    assert objects.labels() == {k: k - 1 for k in range(2, 6)}


def test_pixels_in_two_masks():
    bottle, cap = box(2, 12, logit=9.0), box(3, 7, 3, 6, logit=1.0)
    mask = index_mask(np.stack([cap, bottle]), [1, 2])
    assert (mask[3:6, 3:7] == 1).all()  # a part of it, though of the lower logit
    assert (mask == 2).sum() == 10 * 8 - 4 * 3
    left, right = box(0, 10, logit=1.0), box(8, 18, logit=2.0)
    mask = index_mask(np.stack([left, right]), [1, 2])
    assert (mask[2:10, :8] == 1).all() and (mask[2:10, 8:18] == 2).all()  # the surer one
    assert not index_mask(np.stack([left]), [0]).any()
    assert index_mask(np.zeros((0, *SIZE)), []).shape == SIZE


def test_a_part_of_a_part():
    sizes = [box(0, 18, 0, 12), box(2, 12, 2, 10), box(3, 8, 3, 8)]
    for order in itertools.permutations(range(3)):
        mask = index_mask(np.stack([sizes[i] for i in order]), [i + 1 for i in order])
        assert [(mask == i).sum() for i in (1, 2, 3)] == [18 * 12 - 80, 80 - 25, 25]


@pytest.mark.parametrize("seed", range(3))
def test_true_masks_come_back(seed):
    """Of regions that move, whatever the network's numbers, with objects out of view at times."""
    rng = np.random.default_rng(seed)
    start, velocity = rng.random((5, 2)) * 30, rng.normal(0, 1, (5, 2))
    row_column = np.stack(np.mgrid[:30, :30], -1)[:, :, None]
    numbers = rng.permutation(20)[:4].tolist()  # the fifth region is static
    objects = NamedObjects([*"abcd"], {number: i for i, number in enumerate(numbers)})
    frames, truth = [], []
    for t in range(6):
        region = np.linalg.norm(row_column - start - t * velocity, axis=-1).argmin(-1)
        visible = [i for i in range(4) if (region == i).any() and rng.random() < 0.7]
        truth.append(np.where(np.isin(region, visible), region + 1, 0))
        logits = np.array([np.where(region == i, 4.0, -4.0) for i in visible])
        frames.append(Found([numbers[i] for i in visible], logits.reshape(-1, 30, 30)))
        objects.add(t, frames[-1])
    labels, names = objects.labels(), objects.names()
    for found, mask in zip(frames, truth, strict=True):
        ours = index_mask(found.logits, [labels[n] for n in found.ids])
        for i, number in enumerate(numbers):
            if number in labels:
                assert names[labels[number]] == "abcd"[i]
                np.testing.assert_array_equal(ours == labels[number], mask == i + 1)
    assert set(objects.unmatched()) == {"abcd"[i] for i in range(4) if numbers[i] not in labels}


def kept_by_definition(ious, scores, threshold):
    """Non-maximum suppression, by its definition."""
    kept = []
    for one in np.argsort(-scores, kind="stable"):
        if all(ious[one, other] <= threshold for other in kept):
            kept.append(int(one))
    return kept


def test_non_maximum_suppression():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ious = rng.random((7, 7))
        ious = np.maximum(ious, ious.T)
        scores = rng.random(7)
        found = MaskOperations.generic_nms(torch.tensor(ious), torch.tensor(scores), 0.6)
        assert found.tolist() == kept_by_definition(ious, scores, 0.6)
    nothing = MaskOperations.generic_nms(torch.zeros(0, 0), torch.zeros(0), 0.5)
    assert nothing.tolist() == []


def test_connected_components():
    masks = np.random.default_rng(1).random((3, 1, 20, 30)) < 0.4
    found = (part[:, 0].numpy() for part in MaskOperations.cc_2d(torch.tensor(masks)))
    for mask, label, count in zip(masks[:, 0], *found, strict=True):
        expected, _ = ndimage.label(mask, np.ones((3, 3)))
        pairs = set(zip(expected[mask].tolist(), label[mask].tolist(), strict=True))
        assert len(pairs) == expected.max() == len(set(label[mask].tolist()))
        areas = np.bincount(expected.ravel())
        np.testing.assert_array_equal(count, np.where(mask, areas[expected], 0))
        assert (label[~mask] == 0).all()


def test_the_networks_code_calls_ours_and_fetches_nothing(monkeypatch):
    module = pytest.importorskip("transformers.models.sam3_video.modeling_sam3_video")
    monkeypatch.setattr(module, "get_kernel", lambda *a, **k: pytest.fail("fetched"), raising=False)
    logits = torch.full((1, 1, 16, 16), -1.0)
    logits[0, 0, 2:14, 2:14] = 1.0
    logits[0, 0, 5, 5] = -1.0  # a hole
    logits[0, 0, 0, 0] = 1.0  # a speck
    before = module.cv_utils_kernel
    with own_operations():
        filled = module.fill_holes_in_mask_scores(logits.clone(), max_area=4)
        keep = module.nms_masks(
            torch.tensor([0.6, 0.9, 0.2]), logits[0].expand(3, -1, -1), 0.5, 0.5
        )
    assert filled[0, 0, 5, 5] > 0 and filled[0, 0, 0, 0] < 0
    assert keep.tolist() == [False, True, False]
    assert module.cv_utils_kernel is before
