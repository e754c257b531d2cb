"""Tracks in the formats of TAPVid-3D and CoTracker; depth maps in npy, PNG and EXR."""

import numpy as np
import pytest
from PIL import Image

from msdyn.errors import InputError
from msdyn.io import read_cotracker, read_depth_map, read_tapvid3d

FRAMES, POINTS = 6, 5


def test_tapvid3d_is_projected(tmp_path):
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 60, (FRAMES, POINTS, 2))
    depth = rng.uniform(1, 4, (FRAMES, POINTS))
    fx, fy, cx, cy = intrinsics = np.array([50.0, 55, 32, 24])
    xyz = np.stack([(xy[..., 0] - cx) / fx * depth, (xy[..., 1] - cy) / fy * depth, depth], -1)
    visible = rng.random((FRAMES, POINTS)) > 0.3
    xyz[3, 2] = (1, 1, -2)  # behind the camera
    visible[3, 2] = True
    queries = np.stack([*xy[1].T, np.full(POINTS, 1.0)], 1)
    np.savez(
        tmp_path / "t.npz",
        tracks_XYZ=xyz,
        visibility=visible,
        queries_xyt=queries,
        fx_fy_cx_cy=intrinsics,
    )
    tracks = read_tapvid3d(tmp_path / "t.npz")
    visible[3, 2] = False
    np.testing.assert_array_equal(tracks.visible, visible.T)
    np.testing.assert_allclose(tracks.xy[visible.T], xy.swapaxes(0, 1)[visible.T], atol=1e-4)
    assert tracks.query_frame.tolist() == [1] * POINTS
    np.savez(
        tmp_path / "u.npz",
        tracks_XYZ=xyz,
        visibility=visible.T,
        queries_xyt=queries,
        fx_fy_cx_cy=intrinsics,
    )
    with pytest.raises(InputError, match=r"got \(6, 5, 3\) and \(5, 6\)"):
        read_tapvid3d(tmp_path / "u.npz")


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("names", [("pred_tracks", "pred_visibility"), ("tracks", "visibility")])
def test_cotracker(tmp_path, batch, names):
    xy = np.random.default_rng(0).uniform(0, 60, (FRAMES, POINTS, 2)).astype(np.float32)
    score = np.full((FRAMES, POINTS), 0.9, np.float32)
    score[:2, 1] = 0.1  # first visible in frame 2
    score[:, 3] = 0.2  # never visible
    arrays = dict(zip(names, (xy[None], score[None]) if batch else (xy, score), strict=True))
    np.savez(tmp_path / "c.npz", **arrays)
    tracks = read_cotracker(tmp_path / "c.npz")
    assert len(tracks) == POINTS - 1 and tracks.query_frame.tolist() == [0, 2, 0, 0]
    np.testing.assert_allclose(
        tracks.xy[0], xy[:, 0] + 0.5
    )  # CoTracker's first pixel centre is at (0, 0)
    assert tracks.visible[1].tolist() == [False] * 2 + [True] * 4
    assert set(np.unique(tracks.confidence)) == {0, np.float32(0.9)}


def test_cotracker_with_invalid_arrays(tmp_path):
    np.savez(tmp_path / "c.npz", tracks=np.zeros((6, 5, 3)), visibility=np.zeros((6, 5)))
    with pytest.raises(InputError, match=r"c\.npz: expected tracks \[frames, tracks, 2\]"):
        read_cotracker(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", tracks=np.zeros((6, 5, 2)))
    with pytest.raises(InputError, match="visibility missing"):
        read_cotracker(tmp_path / "d.npz")


def test_npy_and_png_depth(tmp_path):
    depth = np.random.default_rng(0).uniform(0.5, 9, (12, 16)).astype(np.float32)
    depth[:2] = 0
    np.save(tmp_path / "d.npy", depth[..., None])
    np.testing.assert_array_equal(read_depth_map(tmp_path / "d.npy"), depth)
    Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(tmp_path / "d.png")
    np.testing.assert_array_equal(read_depth_map(tmp_path / "d.png"), np.round(1000 * depth))


def test_exr(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    depth = np.random.default_rng(0).uniform(0.5, 9, (12, 16)).astype(np.float32)
    stored = depth.copy()
    stored[0, :4] = (np.inf, np.nan, 1e10, 2)
    noise = np.full((12, 16), 77.0, np.float32)
    OpenEXR.File({}, {"A": noise, "Z": stored}).write(str(tmp_path / "d.exr"))
    depth[0, :4] = (0, 0, 0, 2)
    np.testing.assert_array_equal(read_depth_map(tmp_path / "d.exr"), depth)
    OpenEXR.File({}, {"RGB": np.repeat(depth[..., None], 3, 2)}).write(str(tmp_path / "rgb.exr"))
    np.testing.assert_array_equal(read_depth_map(tmp_path / "rgb.exr"), depth)
    OpenEXR.File({}, {"Z": -depth}).write(str(tmp_path / "n.exr"))
    with pytest.raises(InputError, match="are negative"):
        read_depth_map(tmp_path / "n.exr")
    (tmp_path / "e.exr").write_bytes(b"no exr")
    with pytest.raises(InputError, match=r"e\.exr: not a readable EXR"):
        read_depth_map(tmp_path / "e.exr")
