"""A small scene with exact truth, and sequences that fit it without any optimisation."""

import shutil

import pytest
from clips import two_boxes
from exact_fits import exact_sequence, save_fit

from msdyn.scene import Scene
from msdyn.synthetic import write_truth


@pytest.fixture(scope="session")
def boxes_truth():
    """Two boxes over a table, 8 frames of 64x48, two held-out cameras."""
    return two_boxes(8, 64, 48)


@pytest.fixture(scope="session")
def boxes_folder(boxes_truth, tmp_path_factory):
    return write_truth(boxes_truth, tmp_path_factory.mktemp("evaluate") / "boxes")


@pytest.fixture(scope="session")
def boxes_fit(boxes_truth):
    """The scene with its exact motion at every frame."""
    return exact_sequence(boxes_truth)


@pytest.fixture
def boxes(boxes_folder, boxes_fit, tmp_path):
    """A copy of the scene directory with a fit, for tests that modify it."""
    directory = shutil.copytree(boxes_folder, tmp_path / "boxes")
    save_fit(boxes_fit, directory / "fit")
    return Scene(directory)
