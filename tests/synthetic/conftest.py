"""Scenes rendered once for all tests of this folder."""

import pytest
from clips import two_boxes

from msdyn.synthetic import make_scene, render_truth


@pytest.fixture(scope="session")
def boxes():
    """Two boxes at 96x72, 12 frames."""
    return two_boxes(12, 96, 72)


@pytest.fixture(scope="session")
def tiny():
    """Two boxes at 24x18, 8 frames: small enough for brute force."""
    return render_truth(make_scene("two-boxes", frames=8, width=24, height=18))
