"""Choices of indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msdyn.indices import evenly_spaced


@given(st.integers(1, 300), st.integers(1, 400))
def test_spaces_differ_by_one_at_most(length, count):
    chosen = evenly_spaced(length, count)
    assert len(chosen) == min(length, count) and chosen[0] == 0
    assert count == 1 or chosen[-1] == length - 1
    gaps = np.diff(chosen)
    assert not len(gaps) or (gaps.min() >= 1 and np.ptp(gaps) <= 1)


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_of_nothing(count):
    assert len(evenly_spaced(0, count)) == 0
