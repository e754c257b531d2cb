"""A LeRobot dataset of three episodes for the tests of its reader."""

import shutil

import pytest
from robots import LENGTHS, write_dataset


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("robots") / "set"
    return root, write_dataset(root, LENGTHS)


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "set")
    return tmp_path / "set"
