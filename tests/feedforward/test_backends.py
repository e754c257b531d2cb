"""The network as a backend of preprocessing: exact with a network that knows the truth."""

import numpy as np
import pytest
from oracle_network import Oracle

from msdyn.cli import preprocess
from msdyn.errors import InputError
from msdyn.feedforward import backends
from msdyn.feedforward.windows import choose_windows
from msdyn.geometry import project, transform_points
from msdyn.preprocess import find_backend
from msdyn.preprocess.chosen_backends import stage_order
from msdyn.scene import Scene
from msdyn.synthetic import make_scene, render_truth, write_clip, write_truth
from msdyn.synthetic.raycast import Caster, rays_through

FRAMES, WIDTH, HEIGHT = 15, 96, 72


@pytest.fixture(scope="module")
def truth():
    return render_truth(make_scene("two-boxes", frames=FRAMES, width=WIDTH, height=HEIGHT))


@pytest.fixture
def knowing(truth, monkeypatch):
    """Put a network that knows the truth in place of those of files."""

    class Found:
        long_side, frames, licence = WIDTH, 13, "none"

        def load(self):
            oracle = Oracle(truth.spec, choose_windows(FRAMES, 13, 1, 3))
            encode = oracle.encode

            def from_scaled(clip):
                # Whatever the scale of the cameras, depth is in proportion.
                features = encode(clip)
                moved = np.linalg.norm(oracle.cameras.centres[-1] - oracle.cameras.centres[0])
                oracle.unit = moved / float(clip.world_from_cam[0, -1, :3, 3].norm())
                return features

            oracle.encode = from_scaled
            return oracle

    monkeypatch.setattr(backends, "find_model", lambda name: Found())
    # The scale is found in several rounds, which ask about the same frames again.
    monkeypatch.setattr("msdyn.feedforward.inference._SCALE_ROUNDS", 0)


def test_all_three_from_a_video_with_known_cameras(truth, knowing, tmp_path):
    folder = write_clip(truth, tmp_path / "clip")
    cameras = write_truth(truth, tmp_path / "truth") / "cameras.json"
    out = tmp_path / "scene"
    arguments = [str(folder / "clip.mp4"), "--out", str(out), "--preset", "offline"]
    arguments += ["--cameras", "files", "--cameras-path", str(cameras)]
    for stage in ("tracks", "masks", "depth"):
        arguments += [f"--{stage}", "feedforward"]
    assert preprocess.main([*arguments, "--accept-poor"]) in (0, 3)
    scene = Scene(out)
    assert list(scene.info.stages)[:3] == ["frames", "cameras", "tracks"]
    assert all(scene.info.stages[s]["backend"] == "feedforward" for s in ("tracks", "masks"))
    np.testing.assert_allclose(scene.depths(), truth.clip.depths, rtol=1e-3)
    moving, true = scene.masks() > 0, truth.clip.masks > 0
    assert (moving & true).sum() / (moving | true).sum() > 0.97
    tracks = scene.tracks
    caster, xy, visible = Caster(truth.spec), tracks.xy, tracks.visible
    error = {"static": [], "moving": []}
    for index in range(0, len(tracks), 7):
        start, last = int(tracks.query_frame[index]), int(np.flatnonzero(visible[index])[-1])
        column, row = np.floor(xy[index, start]).astype(int)
        expected = followed(caster, start, last, xy[index, start])
        kind = "moving" if truth.clip.masks[start, row, column] else "static"
        error[kind].append(np.linalg.norm(xy[index, last] - expected))
    assert len(error["moving"]) > 50
    assert np.median(error["static"]) < 0.1 and np.median(error["moving"]) < 0.3
    # The same command again does nothing, another network makes all of it again.
    stamps = {stage: scene.info.stages[stage]["seconds"] for stage in scene.info.stages}
    assert preprocess.main([*arguments, "--accept-poor"]) in (0, 3)
    assert stamps == {stage: r["seconds"] for stage, r in Scene(out).info.stages.items()}


def followed(caster, start, last, xy):
    """Return where the surface point at a pixel of one frame is in the image of another."""
    cameras = caster.spec.cameras
    rays = rays_through(cameras[start], xy[None].astype(float))
    hit, _ = caster.mesh(start).cast(cameras[start].centres[0], rays)
    local = transform_points(cameras.cam_from_world[last], caster.positions(last, hit))
    return project(cameras.intrinsics[last], local)[0]


def orders(**changes):
    """Return the order of the stages with other backends than the usual ones."""
    usual = {"tracks": "flow", "masks": "motion", "cameras": "sfm", "depth": "fused"}
    return stage_order({s: find_backend(s, name) for s, name in (usual | changes).items()})


def test_the_order_of_the_stages():
    usual = ["tracks", "masks", "cameras", "depth"]
    assert list(orders()) == usual
    files = orders(cameras="files")
    assert list(files) == usual and files["cameras"] == ("frames", "tracks", "masks")
    early = orders(cameras="files", tracks="feedforward")
    assert list(early) == ["cameras", "tracks", "masks", "depth"]
    assert early["cameras"] == ("frames",)
    assert list(orders(masks="feedforward", depth="feedforward")) == usual
    with pytest.raises(InputError, match="tracks: this backend needs cameras, .* --cameras files"):
        orders(tracks="feedforward")


def test_tracks_need_cameras_from_files(truth, tmp_path, capsys):
    folder = write_clip(truth, tmp_path / "clip")
    arguments = [str(folder / "clip.mp4"), "--out", str(tmp_path / "scene"), "--preset", "offline"]
    assert preprocess.main([*arguments, "--tracks", "feedforward"]) == 2
    assert "--cameras files --cameras-path" in capsys.readouterr().err
