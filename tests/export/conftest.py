"""A small scene with exact truth, and the sequence that is that truth."""

import pytest
from clips import two_boxes
from evaluate.exact_fits import exact_sequence

from msdyn.sequence import save_sequence


@pytest.fixture(scope="session")
def truth():
    """Two boxes over a table, 8 frames of 96x72."""
    return two_boxes(8, 96, 72)


@pytest.fixture(scope="session")
def exact(truth):
    return exact_sequence(truth)


@pytest.fixture(scope="session")
def exact_file(exact, tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "sequence.safetensors"
    save_sequence(exact, path)
    return path
