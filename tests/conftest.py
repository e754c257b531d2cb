"""Fixtures shared by all tests."""

import gc
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

# msdyn is imported by the fixtures: the process that starts the others does without it.

# Without progress, the standard error stream of commands has nothing but error messages.
os.environ["TQDM_DISABLE"] = "1"

# A process started in the background may ignore these, and so would the commands that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The user's weights are for the user: what tests need of them, they name.
os.environ.pop("MSDYN_WEIGHTS", None)

# No deadline: the time of an example varies too much.
settings.register_profile("msdyn", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("msdyn")


# What tests write need not outlive a power failure, and disks of continuous integration are slow.
# tests/writing/test_disk_errors.py tests that files are synced.
os.fsync = lambda handle: None


# Modules and collected tests stay until the end: looking for garbage among them takes seconds.
gc.disable()


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for garbage from the tests on, among what they make."""
    result = yield
    gc.freeze()
    gc.enable()
    return result


# Tests of these folders need no compiled kernels, but for those with a fit. They come first: of two
# processes with half of the tests each, only one then compiles, and the other finds the kernels in
# the cache.
WITHOUT_KERNELS = ("preprocess", "synthetic", "scene", "geometry", "io")
FITTED = "fitted_plane_scene"
# Of the others, those with the longest tests come first: at the end only one process would run.
LONG = ("tools", "demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def position(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in WITHOUT_KERNELS and FITTED in getattr(item, "fixturenames", ()):
            return len(WITHOUT_KERNELS)
        return (*WITHOUT_KERNELS, FITTED, *LONG, folder).index(folder)

    items.sort(key=position)


# Where arguments and results are checked against their annotated shapes (`make test SHAPES=yes`),
# except in slow tests: folders and modules, with tests of whole runs left out.
SHAPES = (
    "export",
    "feedforward",
    "fit",
    "geometry",
    "io",
    "motion",
    "preprocess",
    "scene",
    "sequence",
)
SHAPES_OF = {
    "evaluate": (
        "test_image_metrics",
        "test_tapvid3d",
        "test_targets",
        "test_temporal",
        "test_track_metrics",
    ),
    "synthetic": ("test_animate", "test_priors", "test_raycast", "test_surface_tracks"),
}
# Their parts have tests of their own; whole fits are checked in test_fit, test_variants and
# test_initialize.
WHOLE_RUNS = (
    "test_backends",
    "test_cameras_sfm",
    "test_code_from_scene",
    "test_ends_of_fits",
    "test_ends_of_preprocess",
    "test_exposure_of_fits",
    "test_hard_clips",
    "test_initial_lives",
    "test_memory_of_fits",
    "test_model_adapters",
    "test_pipeline",
    "test_portrait",
    "test_predicted_start",
    "test_preprocess_command",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Let jaxtyping check the shapes of some tests only, where it checks at all."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    checked = folder in SHAPES or item.path.stem in SHAPES_OF.get(folder, ())
    checked &= item.path.stem not in WHOLE_RUNS and item.get_closest_marker("slow") is None
    jaxtyping.config.update("jaxtyping_disable", not checked)
    return (yield)


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


@pytest.fixture
def plane_scene(tmp_path):
    """A static wall and a square moving in front of it; see `make_plane_scene`."""
    from planes import make_plane_scene

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
        motion=replace(quick.motion, prefit_steps=20, joint_refinement="off"),
    )
    monkeypatch.setitem(PRESETS, "quick", small)


@pytest.fixture(scope="session")
def fitted_plane_scene(tmp_path_factory) -> Path:
    """The directory of the small scene with a short fit. Tests must not write into it."""
    from planes import make_plane_scene

    from msdyn.fit import FitConfig, MotionConfig, fit_scene

    scene = make_plane_scene(tmp_path_factory.mktemp("fitted") / "scene")
    motion = MotionConfig(prefit_steps=5, joint_refinement="off")
    fit_scene(scene, FitConfig(epochs=8, motion=motion, static_gaussians=800, moving_gaussians=300))
    return scene.directory
