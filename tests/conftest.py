"""Fixtures shared by all tests."""

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from tqdm import tqdm

from msdyn.geometry import Cameras, look_at
from msdyn.scene import (
    Scene,
    Timeline,
    Tracks,
    create_scene,
    frame_path,
    write_cameras,
    write_depth,
    write_image,
    write_mask,
    write_tracks,
)

# Without progress bars, the standard error stream of commands has nothing but error messages.
tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)

# No deadline: the time of an example varies too much.
settings.register_profile("msdyn", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("msdyn")


# Tests of these folders need no compiled kernels. They come first: of two processes with half of
# the tests each, only one then compiles, and the other finds the kernels in the cache.
WITHOUT_KERNELS = ("preprocess", "synthetic", "scene", "geometry", "io")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def position(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return (*WITHOUT_KERNELS, folder).index(folder)

    items.sort(key=position)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped tests by reason."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4} skipped: {reason}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The optional folder of real clips next to the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "clips").is_dir():
        pytest.skip("needs the folder ../shared with real clips")
    return folder


def make_plane_scene(directory: Path, frames: int = 6, width: int = 32, height: int = 24) -> Scene:
    """Write a small valid scene: a static wall at depth 2 and a square moving in front of it."""
    timeline = Timeline.uniform(frames, 10.0)
    create_scene(directory, width=width, height=height, fps=10.0, timeline=timeline)
    down = np.array([0.0, 1, 0])
    poses = [
        look_at(np.array([0.02 * i, 0, 0]), np.array([0.02 * i, 0, 1]), down) for i in range(frames)
    ]
    write_cameras(directory / "cameras.json", Cameras.pinhole(30.0, width, height, np.stack(poses)))
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    for i in range(frames):
        image, mask = texture.copy(), np.zeros((height, width), np.uint8)
        image[8:16, 6 + i : 14 + i] = (200, 40, 40)
        mask[8:16, 6 + i : 14 + i] = 1
        write_image(frame_path(directory / "images", i, ".png"), image)
        write_mask(directory, i, mask)
        write_depth(directory, i, np.where(mask == 1, 1.5, 2.0).astype(np.float32))
    start = np.stack(np.meshgrid([8.0, 10.5, 12.0], [9.0, 12.0, 14.0]), -1).reshape(-1, 2)
    xy = start[:, None] + np.arange(frames)[:, None] * [1.0, 0.0]
    shape = xy.shape[:2]
    write_tracks(
        directory / "tracks.npz",
        Tracks.from_dense(
            xy, np.ones(shape, bool), np.ones(shape), np.ones(9, int), np.zeros(9, int)
        ),
    )
    return Scene(directory)


@pytest.fixture
def plane_scene(tmp_path) -> Scene:
    return make_plane_scene(tmp_path / "scene")


@pytest.fixture
def small_fits(monkeypatch) -> None:
    """Let the quick preset take few Gaussians, where a test is not about the quality of a fit."""
    from msdyn.fit.config import PRESETS

    quick = PRESETS["quick"]
    small = replace(
        quick,
        static_gaussians=1500,
        moving_gaussians=500,
        motion=replace(quick.motion, prefit_steps=20),
    )
    monkeypatch.setitem(PRESETS, "quick", small)


@pytest.fixture(scope="session")
def fitted_plane_scene(tmp_path_factory) -> Path:
    """The directory of the small scene with a short fit. Tests must not write into it."""
    from msdyn.fit import FitConfig, MotionConfig, fit_scene

    scene = make_plane_scene(tmp_path_factory.mktemp("fitted") / "scene")
    motion = MotionConfig(prefit_steps=5)
    fit_scene(scene, FitConfig(epochs=8, motion=motion, static_gaussians=800, moving_gaussians=300))
    return scene.directory
