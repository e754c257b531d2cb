"""Every part of the network gives the numbers of the published one."""

import pytest
from feedforward_parity import compare


@pytest.fixture(scope="module")
def recordings(shared):
    folder = shared / "movies" / "parity"
    if not folder.is_dir():
        pytest.skip("needs recordings of the published network in ../shared/movies/parity")
    return folder


def test_every_part_agrees_with_the_published_network(recordings):
    rows = list(compare(recordings))
    for row in rows:
        assert row.ours.shape == row.recorded.shape, row.part
        assert row.share <= 1, f"{row.part}: {row.difference}"
        assert row.recorded.ndim == 0 or row.recorded.float().std() > 0, row.part
    assert len(rows) == 56
