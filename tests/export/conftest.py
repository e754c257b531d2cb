"""A small scene with exact truth, and the sequence that is that truth."""

import numpy as np
import pytest
import torch
from clips import two_boxes
from evaluate.exact_fits import exact_sequence

from msdyn.sequence import Gaussians, save_sequence


@pytest.fixture
def one_part(monkeypatch):
    """Objects without groups are one part, however they bend."""
    monkeypatch.setattr("msdyn.sequence.parts._MOST_PARTS", 1)


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


@pytest.fixture(scope="session")
def sparse(exact):
    """Every 16th Gaussian of the scene, three times as large."""
    chosen = [torch.arange(0, len(part), 16) for part in (exact.static, exact.moving)]
    static, moving = (
        part.select(index) for part, index in zip((exact.static, exact.moving), chosen, strict=True)
    )
    with torch.no_grad():
        static.log_scales += np.log(3)
        moving.log_scales += np.log(3)
    return exact.replaced(
        static=static,
        moving=moving,
        motion=exact.motion.select(chosen[1]),
        labels=exact.labels[chosen[1]],
    )


@pytest.fixture(scope="session")
def shiny(sparse):
    """The same with view-dependent colours of degree 3, elongated and rotated at random."""
    generator = torch.Generator().manual_seed(0)

    def changed(old):
        higher = 0.1 * torch.randn(len(old), 15, 3, generator=generator)
        return Gaussians(
            old.means,
            old.log_scales + 0.4 * torch.randn(len(old), 3, generator=generator),
            torch.randn(len(old), 4, generator=generator),
            old.opacity_logits,
            torch.cat([old.harmonics, higher], 1),
        )

    return sparse.replaced(static=changed(sparse.static), moving=changed(sparse.moving))


@pytest.fixture(scope="session")
def succeeding(sparse):
    """Half of the moving Gaussians exist before frame 3.5, the others after it."""
    even = torch.arange(len(sparse.moving)) % 2 == 0
    infinity = torch.full((len(sparse.moving),), float("inf"))
    spans = [torch.where(even, -infinity, 3.5), torch.where(even, 3.5, infinity)]
    return sparse.replaced(moving=sparse.moving.with_life_spans(torch.stack(spans, 1)))
