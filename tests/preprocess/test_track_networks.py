"""Networks that make tracks, through their loading paths: CoTracker, TAPIR and RAFT.

Stand-ins of known motion take their place: in a folder with a `hubconf.py`, or in place of the
package that brings them, with weights where torch hub keeps them.
"""

import dataclasses
import hashlib
import sys
import types

import numpy as np
import pytest
import torch

from msdyn.cli.preprocess import main
from msdyn.errors import InputError, MissingExtraError
from msdyn.preprocess.checkpoints.torch_hub import HubWeights
from msdyn.preprocess.tracks import raft, tapir
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.preprocess.tracks.cotracker import CoTracker, find_cotracker
from msdyn.preprocess.tracks.point_trackers import cut_spans
from msdyn.preprocess.tracks.raft import RaftTracks
from msdyn.preprocess.tracks.tapir import Tapir
from msdyn.scene import Scene

COTRACKER = '''
import torch


class Slides(torch.nn.Module):
    """Predicts a motion of (1, .5) px per frame everywhere."""

    def forward(self, video, queries, backward_tracking=False):
        assert backward_tracking and video.shape[0] == 1 and video.shape[2] == 3
        assert float(video.max()) > 1  # 0..255
        steps = torch.arange(video.shape[1])[None, :, None] - queries[:, None, :, 0]
        move = torch.stack([steps, 0.5 * steps], -1)
        tracks = queries[:, None, :, 1:] + move
        return tracks, torch.ones(tracks.shape[:3]) * 0.9


def cotracker3_offline(pretrained=True):
    return Slides()
'''

TAPIR = '''
import torch


class Slides(torch.nn.Module):
    """Predicts a motion of (1, .5) of its own px per frame; occluded in frame 2."""

    def forward(self, video, query_points):
        batch, frames, height, width, channels = video.shape
        assert (batch, channels) == (1, 3) and height % 8 == width % 8 == 0
        assert -1 <= float(video.min()) < -0.5 and 0.5 < float(video.max()) <= 1
        assert float(query_points[..., 1].max()) < height  # (frame, y, x)
        assert height < float(query_points[..., 2].max()) < width
        steps = torch.arange(frames)[None, None] - query_points[..., :1]
        move = torch.stack([steps, 0.5 * steps], -1)
        hidden = (torch.arange(frames) == 2) * 12.0 - 6
        unsure = (torch.arange(frames) == 4) * 12.0 - 6
        return {
            "tracks": query_points[:, :, None, [2, 1]] + move,
            "occlusion": hidden.expand(steps.shape),
            "expected_dist": unsure.expand(steps.shape),
        }


def tapir():
    return Slides()
'''

RAFT = '''
import torch


class Slides(torch.nn.Module):
    """Predicts a motion of (1, .5) px per frame, after a first iteration of 100."""

    def forward(self, image1, image2):
        assert image1.shape == image2.shape == (2, 3, 128, 128)
        assert -1 <= float(image1.min()) < -0.5 and 0.5 < float(image1.max()) <= 1
        assert torch.equal(image1, image2.flip(0)) and not torch.equal(image1, image2)
        flow = torch.tensor([[1.0, 0.5], [-1.0, -0.5]])[:, :, None, None].expand(2, 2, 128, 128)
        return [torch.full_like(flow, 100), flow]


def raft():
    return Slides()
'''


def check_valid(result, scene):
    """Check the tracks of a result and return them."""
    tracks = result.tracks
    visible = tracks.visible
    assert result.figures["tracks"] == len(tracks) > 100
    assert visible.sum(1).min() >= 3 and visible.any(0).all()  # every frame has some
    assert (tracks.xy[visible] >= 0).all()
    assert (tracks.xy[visible] <= [scene.info.width, scene.info.height]).all()
    return tracks


def test_cotracker_from_a_hub_folder(square, tmp_path):
    scene, _ = square
    (tmp_path / "hubconf.py").write_text(COTRACKER)
    backend = CoTracker(str(tmp_path), grid=10, every=5, span=8, offline=True)
    tracks = check_valid(backend.track(scene), scene)
    for row in range(0, len(tracks), 7):
        seen = np.flatnonzero(tracks.visible[row])
        np.testing.assert_allclose(
            np.diff(tracks.xy[row, seen], axis=0), [[1, 0.5]] * (len(seen) - 1), atol=1e-4
        )
        assert seen[-1] - seen[0] == len(seen) - 1 < 8 and tracks.query_frame[row] == seen[0]
    assert set(np.unique(tracks.confidence[tracks.visible])) == {np.float32(0.9)}
    # The points that were asked for lie on the grid.
    started = tracks.xy[:, 2][tracks.visible[:, 2]]
    step = 9.6
    assert np.isclose(started / step % 1, 0.5, atol=1e-3).all(1).any()
    (tmp_path / "hubconf.py").unlink()
    with pytest.raises(InputError, match="cannot be loaded by torch hub"):
        backend.track(scene)
    with pytest.raises(InputError, match="nothing is fetched offline"):
        CoTracker("nobody/nothing", offline=True).track(scene)
    assert CoTracker().licence == "CC-BY-NC-4.0"
    assert find_cotracker(offline=True).how in ("cached", "no")


def test_tapir_from_a_hub_folder(square, tmp_path, monkeypatch):
    """At half the size, 48x32, where pixels of the network are 2 by 2.25 of ours."""
    scene, _ = square
    monkeypatch.setattr(tapir, "_SIDE", 48)
    (tmp_path / "hubconf.py").write_text(TAPIR)
    tracks = Tapir(str(tmp_path), grid=10, every=5, offline=True).track(scene).tracks
    visible = tracks.visible
    assert len(tracks) > 100
    assert not visible[:, [2, 4]].any() and visible[:, 3].any()
    for row in range(0, len(tracks), 7):
        seen = np.flatnonzero(visible[row])
        moved = tracks.xy[row, seen] - tracks.xy[row, seen[0]]
        expected = (seen - seen[0])[:, None] * [2, 0.5 * 2.25]
        np.testing.assert_allclose(moved, expected, atol=1e-4)
    # At the frames that start points, all of the grid is there, at the middle of its cells.
    step = 9.6
    at = tracks.xy[visible[:, 7], 7]
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(7)), -1).reshape(-1, 2) * step + step / 2
    near = np.linalg.norm(at[:, None] - grid, axis=2).min(0)
    assert near.max() < 1e-3
    assert Tapir().licence == "Apache-2.0" and "your own" in Tapir(str(tmp_path)).licence


def stand_in(monkeypatch, name, **content):
    """Let a module be imported that is not there, and the packages around it."""
    parent = None
    for end in range(1, name.count(".") + 2):
        path = ".".join(name.split(".")[:end])
        module = types.ModuleType(path)
        monkeypatch.setitem(sys.modules, path, module)
        if parent:
            setattr(parent, path.rsplit(".", 1)[-1], module)
        parent = module
    vars(parent).update(content)


def put_weights(network, weights, monkeypatch, folder):
    """Put a network's weights where torch hub keeps those of a file, and expect their digest."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a socket was opened"))
    weights.path.parent.mkdir()
    torch.save(network.state_dict(), weights.path)
    digest = hashlib.sha256(weights.path.read_bytes()).hexdigest()
    return dataclasses.replace(weights, sha256=digest)


def test_tapir_by_its_package_and_weights(square, monkeypatch, tmp_path):
    class Shifts(torch.nn.Module):
        """Predicts the motion in its weights."""

        def __init__(self, pyramid_level):
            super().__init__()
            assert pyramid_level == 1
            self.step = torch.nn.Parameter(torch.zeros(2))

        def forward(self, video, query_points):
            steps = torch.arange(video.shape[1])[None, None] - query_points[..., :1]
            tracks = query_points[:, :, None, [2, 1]] + steps[..., None] * self.step
            low = torch.full(steps.shape, -6.0)
            return {"tracks": tracks, "occlusion": low, "expected_dist": low}

    scene, _ = square
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tapnet", None)
        with pytest.raises(MissingExtraError, match="needs tapnet: pip install") as error:
            Tapir().track(scene)
        assert "\n" not in str(error.value) and error.value.exit_code == 2
    stand_in(monkeypatch, "tapnet.torch.tapir_model", TAPIR=Shifts)
    trained = Shifts(1)
    trained.step.data = torch.tensor([1.0, 0.5])
    own = put_weights(trained, tapir._WEIGHTS, monkeypatch, tmp_path)
    with pytest.raises(InputError, match="not the expected file of weights"):
        Tapir(offline=True).track(scene)
    monkeypatch.setattr(tapir, "_WEIGHTS", own)
    tracks = check_valid(Tapir(grid=16, offline=True).track(scene), scene)
    both = tracks.visible[:, 1:] & tracks.visible[:, :-1]
    moved = np.diff(tracks.xy, axis=1)[both]
    np.testing.assert_allclose(moved, np.broadcast_to([1, 0.5], moved.shape), atol=1e-4)
    own.path.unlink()
    with pytest.raises(InputError, match="not on this disk"):
        Tapir(offline=True).track(scene)


def test_raft_from_a_hub_folder(square, tmp_path):
    scene, without_weights = square
    (tmp_path / "hubconf.py").write_text(RAFT)
    result = RaftTracks(model=str(tmp_path), offline=True).track(scene)
    tracks = check_valid(result, scene)
    assert result.figures["forward_backward_px"] == 0
    # It believes this flow on the background, which does move so, and nowhere on the square.
    later = tracks.visible[:, 1:] & tracks.visible[:, :-1]
    moved = np.diff(tracks.xy, axis=1)[later]
    assert np.median(np.linalg.norm(moved - [1, 0.5], axis=1)) < 0.05
    frame = 6
    inside = without_weights.xy[without_weights.visible[:, frame], frame]
    ours = tracks.xy[tracks.visible[:, frame] & tracks.visible[:, frame + 1], frame]

    def on_square(xy):
        return ((xy > [10 + 3 * frame + 3, 23]) & (xy < [10 + 3 * frame + 27, 47])).all(1).sum()

    assert on_square(inside) > 20 and on_square(ours) < 0.2 * on_square(inside)


def test_flow_of_padded_images_is_that_of_their_pixels():
    """A network that returns the colours of its first image as flow: at the same pixels."""
    pair = np.random.default_rng(0).integers(0, 255, (2, 51, 140, 3), dtype=np.uint8)
    sizes = []

    def colours(first, second):
        sizes.append(tuple(first.shape))
        return [first[:, :2]]

    forward, backward = raft._flow(colours, pair, "cpu")
    assert sizes == [(2, 3, 128, 144)]
    np.testing.assert_allclose(forward, pair[0, ..., :2] / 127.5 - 1, atol=1e-5)
    np.testing.assert_allclose(backward, pair[1, ..., :2] / 127.5 - 1, atol=1e-5)


def test_raft_by_torchvision_and_its_weights(square, monkeypatch, tmp_path):
    class Shifts(torch.nn.Module):
        """Predicts the motion in its weights."""

        def __init__(self, weights):
            super().__init__()
            assert weights is None
            self.step = torch.nn.Parameter(torch.zeros(2))

        def forward(self, first, second):
            flow = torch.stack([self.step, -self.step])
            return [flow[:, :, None, None].expand(2, 2, *first.shape[2:])]

    scene, _ = square
    url = "https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth"
    weights = types.SimpleNamespace(DEFAULT=types.SimpleNamespace(url=url))
    content = {"raft_small": Shifts, "Raft_Small_Weights": weights}
    stand_in(monkeypatch, "torchvision.models.optical_flow", **content)
    trained = Shifts(None)
    trained.step.data = torch.tensor([1.0, 0.5])
    put_weights(trained, HubWeights(url, "MIT"), monkeypatch, tmp_path)
    with pytest.raises(InputError, match="not the expected file of weights"):
        RaftTracks(model="raft_small", offline=True).flow_between()
    digest = hashlib.sha256(HubWeights(url, "MIT").path.read_bytes()).hexdigest()
    named = url.replace("01064c6d", digest[:8])
    HubWeights(url, "MIT").path.rename(HubWeights(named, "MIT").path)
    weights.DEFAULT.url = named
    images = scene.image(0), scene.image(1)
    pair = RaftTracks(model="raft_small", offline=True).flow_between()(*images)
    np.testing.assert_array_equal(pair.forward, np.broadcast_to(np.float32([1, 0.5]), (72, 96, 2)))
    np.testing.assert_array_equal(pair.backward, -pair.forward)
    # What follows them is the chain without weights, on the same grey images.
    own = FlowTracks().flow_between()(*images)
    np.testing.assert_array_equal(pair.first, own.first)
    np.testing.assert_array_equal(pair.second, own.second)
    HubWeights(named, "MIT").path.unlink()
    with pytest.raises(InputError, match="not on this disk"):
        RaftTracks(model="raft_small", offline=True).flow_between()


def test_the_command_takes_them_and_says_what_is_missing(clip, tmp_path, capsys, monkeypatch):
    arguments = [str(clip / "clip.mp4"), "--out", str(tmp_path / "scene"), "--preset", "offline"]
    arguments += ["--only", "frames", "--only", "tracks", "--tracks"]
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert main([*arguments, "raft"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "needs torchvision" in err and "--tracks flow" in err
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "hubconf.py").write_text(RAFT)
    for name in ("raft", "tapir", "cotracker"):
        (folder / "hubconf.py").write_text({"raft": RAFT, "tapir": TAPIR}.get(name, COTRACKER))
        assert main([*arguments, name, "--tracks-model", str(folder)]) == 0
        record = Scene(tmp_path / "scene").info.stages["tracks"]
        assert (record["backend"], record["model"]) == (name, str(folder))
        assert record["licence"] == "unknown (your own copy)"


def test_spans_cover_every_frame_and_overlap():
    for frames in (5, 80, 81, 119, 120, 400):
        spans = cut_spans(frames, 80)
        covered = np.zeros(frames, int)
        for first, last in spans:
            covered[first:last] += 1
        assert covered.min() >= 1 and all(last - first == min(frames, 80) for first, last in spans)


@pytest.mark.hub
def test_the_real_cotracker(square):
    if not find_cotracker(offline=False):
        pytest.skip("GitHub is out of reach")
    assert len(CoTracker().track(square[0]).tracks) > 100


@pytest.mark.hub
@pytest.mark.parametrize("backend", [Tapir(), RaftTracks(), RaftTracks(model="raft_small")])
def test_the_real_tapir_and_raft(square, backend):
    try:
        tracks = backend.track(square[0]).tracks
    except (MissingExtraError, InputError) as error:
        pytest.skip(str(error))
    assert len(tracks) > 100
