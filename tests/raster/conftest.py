"""gsplat's kernels emulated on the CPU, for the tests of the renderer."""

from collections.abc import Iterator

import emulated_gsplat
import pytest


@pytest.fixture(scope="session", autouse=True)
def emulation() -> Iterator[None]:
    with emulated_gsplat.installed():
        yield
