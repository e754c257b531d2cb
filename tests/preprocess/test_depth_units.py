"""The unit of depth files: what static tracks and cameras tell of it, and what they do not."""

import numpy as np
import pytest
from moving import write_scene
from PIL import Image
from test_numbering import FRAMES, HEIGHT, WIDTH, observed, path

from msdyn.errors import InputError
from msdyn.geometry import project, transform_points
from msdyn.preprocess import CameraSolution, SparsePoints, Verdict
from msdyn.preprocess.depth.from_files import FileDepth
from msdyn.preprocess.depth.units import find_unit
from msdyn.scene import Tracks


def surface(wall=False):
    """Return cameras, tracks of points of a surface, and a function to its depth in a frame.

    A slope from 1.5 to 4.5 units away, or a wall at 2.
    """
    cameras, rng = path(), np.random.default_rng(1)
    slope = 0.0 if wall else 0.8
    xy = rng.uniform([-2, -1.5], [3, 1.5], (400, 2))
    xyz = np.c_[xy, 2.0 + (0 if wall else 0.6) + slope * xy[:, 0] / 2]

    def depth(frame):
        """Intersect rays with the plane z = a + b x of the world."""
        a, b = xyz[0, 2] - slope / 2 * xyz[0, 0], slope / 2
        columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        rays = np.stack([(columns - 64) / 110, (rows - 48) / 110, np.ones_like(rows)], -1)
        pose = cameras.world_from_cam[frame]
        world = rays @ pose[:3, :3].T
        origin = pose[:3, 3]
        along = (a + b * origin[0] - origin[2]) / (world[..., 2] - b * world[..., 0])
        return along.astype(np.float32)

    local = transform_points(cameras.cam_from_world, xyz)
    seen_xy = project(cameras.intrinsics, local).swapaxes(0, 1)
    seen = ((seen_xy >= 0) & (seen_xy <= [WIDTH, HEIGHT])).all(-1)
    seen &= seen.sum(1, keepdims=True) > 3
    seen_xy = np.where(seen[..., None], seen_xy + rng.normal(0, 0.1, seen_xy.shape), 0)
    tracks = Tracks.from_dense(
        seen_xy, seen, seen.astype(float), np.zeros(len(xyz)), seen.argmax(1)
    )
    return cameras, tracks.select(tracks.lifetimes > 0), depth


@pytest.mark.parametrize("wall", [False, True])
@pytest.mark.parametrize(
    "factor, words",
    [
        (1.0, ""),
        (1000.0, "millimetres beside cameras in metres"),
        (100.0, "centimetres beside cameras in metres"),
        (0.001, "metres beside cameras in millimetres"),
        (7.3, "of another scale than the cameras, converted: multiplied by 0.13"),
    ],
)
def test_scales_of_depth(wall, factor, words):
    cameras, tracks, depth = surface(wall)
    unit = find_unit(tracks, cameras, lambda frame: np.float32(factor) * depth(frame))
    assert unit is not None and not unit.inverse and words in unit.text
    assert bool(unit.text) == bool(words)
    assert unit.scale == pytest.approx(1 / factor, rel=0.02)


@pytest.mark.parametrize("factor", [1.0, 40.0, 255.0])
def test_inverse_depth(factor):
    cameras, tracks, depth = surface()
    unit = find_unit(tracks, cameras, lambda frame: np.float32(factor) / depth(frame))
    assert unit is not None and unit.inverse and "inverse depth (disparity)" in unit.text
    values = np.float32(factor) / depth(3)
    values[0, 0] = 0  # unknown
    found = unit.depth(values)
    assert found[0, 0] == 0
    np.testing.assert_allclose(found[1:], depth(3)[1:], rtol=0.02)


def test_maps_of_another_size():
    cameras, tracks, depth = surface()
    unit = find_unit(tracks, cameras, lambda frame: 1000 * depth(frame)[1::2, 1::2])
    assert unit is not None and unit.scale == 0.001


def test_what_tracks_do_not_tell():
    cameras, tracks, depth = surface()
    rng = np.random.default_rng(0)

    def noise(frame):
        return np.exp(rng.normal(0, 1, (HEIGHT, WIDTH))).astype(np.float32)

    def shifted(frame):  # relative depth, of no known zero
        return (1 / depth(frame) - 0.2).clip(0).astype(np.float32) * (1 + frame % 5)

    assert find_unit(tracks, cameras, noise) is None
    assert find_unit(tracks, cameras, shifted) is None
    assert find_unit(tracks.select(np.arange(10)), cameras, depth) is None
    still = cameras[np.zeros(FRAMES, int)]
    assert find_unit(tracks, still, depth) is None


def solution(cameras):
    return CameraSolution(cameras, "unknown", SparsePoints.empty(), Verdict("good"))


def test_files_in_millimetres_are_converted_and_said(tmp_path, caplog):
    cameras, tracks, depth = surface()
    scene = write_scene(tmp_path / "scene", np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8))
    (tmp_path / "d").mkdir()
    for frame in range(FRAMES):
        image = Image.fromarray(np.round(1000 * depth(frame)).astype(np.uint16))
        image.save(tmp_path / "d" / f"{frame}.png")
    maps = FileDepth(tmp_path / "d").estimate(scene, tracks, None, solution(cameras)).maps
    np.testing.assert_allclose(list(maps)[5].depth, depth(5), atol=1e-3)
    assert maps.figures["unit"].startswith("millimetres")
    assert [r.message for r in caplog.records] == [
        f"depth: {tmp_path / 'd'}: millimetres beside cameras in metres, converted: multiplied by "
        "0.001, as static tracks show"
    ]
    # A scale of the user is kept, and tracks of objects do not count.
    maps = FileDepth(tmp_path / "d", 1.0).estimate(scene, tracks, None, solution(cameras)).maps
    assert list(maps)[5].depth.mean() > 1000 and "unit" not in maps.figures
    with pytest.raises(InputError, match="a .png of depth needs --depth-scale"):
        moving = observed(cameras)
        moving = Tracks(**{**vars(moving), "object": np.ones(len(moving), np.int32)})
        FileDepth(tmp_path / "d").estimate(scene, moving, None, solution(cameras))
