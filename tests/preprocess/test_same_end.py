"""The whole run, --check and a run of some stages end with the same exit code."""

import numpy as np
import pytest
from small_clip import FRAMES, SIZE

from msdyn.cli.preprocess import main
from msdyn.scene import Scene

UNTIL_CAMERAS = [part for stage in ("frames", "tracks", "masks", "cameras")
                 for part in ("--only", stage)]  # fmt: skip


def command(config, *more):
    return [str(config.video), "--out", str(config.out), "--masks", "none", *more]


def with_files(config, depth):
    return command(
        config, "--cameras", "files", "--cameras-path", str(config.cameras_path), "--depth",
        "files", "--depth-path", str(depth),
    )  # fmt: skip


def test_poor_cameras_end_a_part_as_the_whole(config, poor, clip, capsys):
    assert main(command(config, *UNTIL_CAMERAS)) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "the camera only turns" in err
    assert main(command(config)) == 3
    assert main(command(config, *UNTIL_CAMERAS, "--accept-poor")) == 0
    # Depth from files does not depend on them.
    files = ["--depth", "files", "--depth-path", str(clip / "depth")]
    assert main(command(config, *files, *UNTIL_CAMERAS)) == 0


def test_depth_that_contradicts_the_cameras_is_poor_everywhere(config, tmp_path, capsys):
    depth = tmp_path / "depth"
    depth.mkdir()
    rng = np.random.default_rng(0)
    for i in range(FRAMES):  # of another distance in every frame
        np.save(depth / f"{i:05d}.npy", np.full(SIZE, np.exp(rng.normal()), np.float32))
    assert main(with_files(config, depth)) == 3
    assert "next: msdyn-fit" not in capsys.readouterr().out
    assert main(["--check", str(config.out)]) == 3


@pytest.mark.parametrize("make", [lambda z: 1000 * z, lambda z: 1 / z])
def test_depth_in_other_units_is_converted_and_then_fits(config, tmp_path, caplog, make):
    depth = tmp_path / "depth"
    depth.mkdir()
    for i in range(FRAMES):
        np.save(depth / f"{i:05d}.npy", make(np.full(SIZE, 2.0, np.float32)))
    assert main(with_files(config, depth)) == 0
    assert main(["--check", str(config.out)]) == 0
    np.testing.assert_allclose(Scene(config.out).depth(4), 2.0, rtol=0.01)
    assert sum("as static tracks show" in record.message for record in caplog.records) == 1
