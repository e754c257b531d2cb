"""A small scene with exact truth, and the sequence that is that truth."""

import pytest
from evaluate.exact_fits import exact_sequence

from msdyn.sequence import save_sequence
from msdyn.synthetic import make_scene, render_truth


@pytest.fixture(scope="session")
def truth():
    """Two boxes over a table, 8 frames of 96x72."""
    return render_truth(make_scene("two-boxes", frames=8, width=96, height=72))


@pytest.fixture(scope="session")
def exact(truth):
    return exact_sequence(truth)


@pytest.fixture(scope="session")
def exact_file(exact, tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "sequence.safetensors"
    save_sequence(exact, path)
    return path
