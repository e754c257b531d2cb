"""Replace gsplat's CUDA kernels by their emulation on the CPU in all tests of the rasterizer."""

from collections.abc import Iterator

import emulated_gsplat
import pytest


@pytest.fixture(scope="session", autouse=True)
def emulation() -> Iterator[None]:
    with emulated_gsplat.installed():
        yield
