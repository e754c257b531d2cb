"""Every adapter of a foundation model through its real loading path, on tiny random checkpoints."""

import sys

import numpy as np
import pytest
from moving import panning, paste, texture, write_scene
from msdyn.preprocess.models import depth_anything, depth_pro, sam_video, zoedepth
from msdyn.preprocess.models.cotracker import CoTracker, _spans, find_cotracker
from msdyn.preprocess.models.depth import DEPTH_MODELS, ModelDepth, load_network
from msdyn.preprocess.models.hub import CHECKPOINTS, find_checkpoint, licence_of, load_pretrained
from msdyn.preprocess.models.placement import Placement, fit_size, network_input
from msdyn.preprocess.models.sam_video import SAM_MODELS, SamMasks, _Tracker
from msdyn.preprocess.prompts import Prompt
from msdyn.preprocess.tracks import FlowTracks
from PIL import Image
from tiny_models import save_depth_anything, save_depth_pro, save_sam2, save_zoedepth

from msdyn.errors import InputError, MissingExtraError

pytest.importorskip("transformers")
CPU = Placement("cpu", False, 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of tiny checkpoints by name."""
    folder = tmp_path_factory.mktemp("tiny")
    savers = {
        "depth-anything": save_depth_anything,
        "depth-pro": save_depth_pro,
        "zoedepth": save_zoedepth,
        "sam2": save_sam2,
    }
    return {name: str(save(folder / name)) for name, save in savers.items()} | {
        "depth-anything-metric": str(save_depth_anything(folder / "metric", metric=True))
    }


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A scene of a square that slides over a panned background, and its tracks."""
    frames, _ = panning(14, (72, 96))
    sprite = texture(30, 30, seed=4)
    frames = [paste(image, sprite, (10 + 3 * t, 20))[0] for t, image in enumerate(frames)]
    scene = write_scene(tmp_path_factory.mktemp("clip") / "scene", np.stack(frames))
    return scene, FlowTracks().track(scene)[0]


@pytest.mark.parametrize(
    "name", ["depth-anything", "depth-anything-metric", "depth-pro", "zoedepth"]
)
def test_a_depth_network_from_a_checkpoint(tiny, name):
    network = load_network(name, tiny[name], offline=True)
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    inverse = network.predict(images)
    assert inverse.dtype == np.float32 and len(inverse) == 2 and inverse.ndim == 3
    assert np.isfinite(inverse).all() and (inverse >= 0).all()
    assert network.metric == (name != "depth-anything")
    # A frame does not depend on what goes through beside it.
    np.testing.assert_allclose(network.predict(images[1:])[0], inverse[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", [*DEPTH_MODELS])
def test_a_depth_network_in_half_precision(tiny, name, monkeypatch):
    """As on CUDA, but on the CPU."""

    def place_half(network, megabytes):
        network.half()
        return Placement("cpu", True, 2)

    images = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    exact = load_network(name, tiny[name], offline=True).predict(images)
    for module in (depth_anything, depth_pro, zoedepth):
        monkeypatch.setattr(module, "place", place_half)
    half = load_network(name, tiny[name], offline=True).predict(images)
    assert half.dtype == np.float32 and half.shape == exact.shape
    np.testing.assert_allclose(half, exact, atol=0.02 * np.abs(exact).max() + 1e-5)


def test_depth_of_a_scene_by_a_checkpoint(tiny, clip):
    from msdyn.preprocess.base import CameraSolution, SparsePoints, Verdict

    from msdyn.geometry import Cameras

    scene, tracks = clip
    backend = ModelDepth("depth-anything-metric", tiny["depth-anything-metric"], offline=True)
    poses = np.tile(np.eye(4), (len(scene), 1, 1))
    cameras = Cameras.pinhole(90.0, 96, 72, poses)
    solution = CameraSolution(cameras, "static", SparsePoints.empty(), Verdict("poor", "a", "b"))
    masks = np.zeros((len(scene), 72, 96), np.uint8)
    maps, quality = backend.estimate(scene, tracks, masks, solution)
    maps = list(maps)
    assert len(maps) == len(scene) and all(depth.shape == (72, 96) for depth in maps)
    assert quality["device"] in ("cpu", "cuda") and "in metres" in quality["note"]
    assert backend.licence == "unknown (your own checkpoint)"


def test_input_of_depth_anything_is_that_of_transformers():
    from transformers import DPTImageProcessorPil

    image = texture(97, 150)
    size = fit_size((97, 150), depth_anything._SIZE, depth_anything._STEP)
    ours = network_input(image[None], size, depth_anything._MEAN, depth_anything._STD, CPU)
    processor = DPTImageProcessorPil(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        image_mean=depth_anything._MEAN,
        image_std=depth_anything._STD,
    )
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    # PIL rounds to whole grey levels, 1 / 255 / .225 = .017.
    assert (ours - theirs).abs().mean() < 0.02


def test_input_of_zoedepth_is_that_of_transformers(tiny, monkeypatch):
    from transformers import ZoeDepthImageProcessorPil

    image = texture(97, 150)
    network = load_network("zoedepth", tiny["zoedepth"], offline=True)
    seen = []
    forward = network._network.forward

    def listen(pixel_values):
        seen.append(pixel_values)
        return forward(pixel_values=pixel_values)

    monkeypatch.setattr(network._network, "forward", listen)
    network.predict(image[None])
    processor = ZoeDepthImageProcessorPil(ensure_multiple_of=zoedepth._STEP)
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    assert seen[0].shape == theirs.shape
    # Bilinear there (with corners aligned), bicubic here: means agree, pixels nearly.
    assert abs(float(seen[0].mean() - theirs.mean())) < 0.01
    assert (seen[0] - theirs).abs().mean() < 0.1


def test_what_is_no_checkpoint_is_refused_in_one_line(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be loaded as DepthAnything") as error:
        load_network("depth-anything", str(tmp_path / "empty"), offline=True)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="its weights are missing|cannot be loaded"):
        load_network("zoedepth", tiny["depth-anything"], offline=True)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pretrained("DepthAnythingForDepthEstimation", "nobody/nothing", offline=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'msdyn\[preprocess\]'") as error:
        load_pretrained("Any", "some/model", offline=True)
    assert error.value.exit_code == 2
    # EdgeTAM's backbone is of timm.


def test_availability_without_a_network(tiny, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a socket was opened"))
    assert find_checkpoint(tiny["sam2"], offline=True).how == "folder"
    for offline in (True, False):  # HF_HUB_OFFLINE is set in tests
        found = find_checkpoint("facebook/sam2.1-hiera-tiny", offline=offline)
        assert not found and "not on this disk" in found.why
    assert licence_of("facebook/sam2.1-hiera-tiny") == "Apache-2.0"
    assert licence_of("some/other") == "unknown (see its page)"
    assert set(DEPTH_MODELS.values()) | set(SAM_MODELS.values()) <= set(CHECKPOINTS)


def prompt(frame, x, label=1):
    return Prompt(label, frame, np.array([[x, 35.0]]), np.array([1]), (x - 14, 20.0, x + 14, 50.0))


def test_masks_by_a_checkpoint_prompted_by_motion(tiny, clip):
    scene, tracks = clip
    backend = SamMasks("sam2", tiny["sam2"], offline=True)
    masks, quality = backend.segment(scene, tracks, None)
    masks = list(masks)
    assert len(masks) == len(scene)
    assert all(mask.shape == (72, 96) and mask.dtype == np.uint8 for mask in masks)
    assert set(np.unique(masks)) <= {0, 1}
    assert quality["prompted_by"] == "motion" and quality["prompts"] >= 1
    assert quality["moving_share"] == pytest.approx(np.mean([m > 0 for m in masks]), abs=1e-3)


def test_forgetting_and_reading_frames_late_change_nothing(tiny, clip):
    """The same session with all frames in memory and nothing dropped gives the same masks."""
    scene, _ = clip
    prompts = [prompt(6, 43.0), prompt(2, 31.0, label=2), prompt(9, 52.0)]
    tracker = _Tracker("sam2", tiny["sam2"], scene, offline=True)
    found = dict(tracker.follow(prompts))
    assert sorted(found) == list(range(len(scene)))
    kept = [len(o["non_cond_frame_outputs"]) for o in
            tracker._session.output_dict_per_obj.values()]  # fmt: skip
    assert max(kept) < len(scene) - 2

    plain = _Tracker("sam2", tiny["sam2"], scene, offline=True)
    session = plain._session
    session.processed_frames = {t: session.processed_frames[t] for t in range(len(scene))}
    plain._forget = lambda frame, first: None
    for frame, mask in plain.follow(prompts):
        np.testing.assert_array_equal(found[frame], mask)


def test_masks_in_half_precision(tiny, clip, monkeypatch):
    def place_half(network, megabytes):
        network.half()
        return Placement("cpu", True, 1)

    monkeypatch.setattr(sam_video, "place", place_half)
    tracker = _Tracker("sam2", tiny["sam2"], clip[0], offline=True)
    found = dict(tracker.follow([prompt(6, 43.0), prompt(2, 31.0, label=2)]))
    assert sorted(found) == list(range(len(clip[0])))


def test_no_object_no_network(tiny, tmp_path):
    scene = write_scene(tmp_path / "still", panning(12, (72, 96))[0])
    tracks, _ = FlowTracks().track(scene)
    masks, quality = SamMasks("sam2", str(tmp_path / "gone"), offline=True).segment(
        scene, tracks, None
    )
    assert not np.stack(list(masks)).any() and quality["prompts"] == 0


HUBCONF = '''
import torch


class Slides(torch.nn.Module):
    """Says that everything moves by (1, .5) px a frame."""

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


def test_cotracker_from_a_hub_folder(clip, tmp_path):
    scene, _ = clip
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    backend = CoTracker(str(tmp_path), grid=10, every=5, span=8, offline=True)
    tracks, quality = backend.track(scene)
    assert quality["tracks"] == len(tracks) > 100
    visible = tracks.visible
    assert visible.sum(1).min() >= 3 and (tracks.xy[visible] >= 0).all()
    assert (tracks.xy[visible] <= [96, 72]).all()
    for row in range(0, len(tracks), 7):
        seen = np.flatnonzero(visible[row])
        np.testing.assert_allclose(
            np.diff(tracks.xy[row, seen], axis=0), [[1, 0.5]] * (len(seen) - 1), atol=1e-4
        )
        assert seen[-1] - seen[0] == len(seen) - 1 < 8 and tracks.query_frame[row] == seen[0]
    assert tracks.visible.any(0).all()  # every frame has some
    assert set(np.unique(tracks.confidence[visible])) == {np.float32(0.9)}
    (tmp_path / "hubconf.py").unlink()
    with pytest.raises(InputError, match="cannot be loaded by torch hub"):
        backend.track(scene)
    with pytest.raises(InputError, match="nothing is fetched offline"):
        CoTracker("nobody/nothing", offline=True).track(scene)
    assert CoTracker().licence == "CC-BY-NC-4.0"
    monkey = find_cotracker(offline=True)
    assert monkey.how in ("cached", "no")


def test_spans_cover_every_frame_and_overlap():
    for frames in (5, 80, 81, 119, 120, 400):
        spans = _spans(frames, 80)
        covered = np.zeros(frames, int)
        for first, last in spans:
            covered[first:last] += 1
        assert covered.min() >= 1 and all(last - first == min(frames, 80) for first, last in spans)


@pytest.mark.hub
@pytest.mark.parametrize("name", [*DEPTH_MODELS])
def test_real_depth_checkpoints(name, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if not find_checkpoint(DEPTH_MODELS[name], offline=False):
        pytest.skip("the hub is out of reach")
    inverse = load_network(name, DEPTH_MODELS[name], offline=False).predict(texture(96, 128)[None])
    assert np.isfinite(inverse).all() and inverse.std() > 0


@pytest.mark.hub
@pytest.mark.parametrize("name", [*SAM_MODELS])
def test_real_segmentation_checkpoints(name, clip, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if not find_checkpoint(SAM_MODELS[name], offline=False):
        pytest.skip("the hub is out of reach")
    scene, _ = clip
    found = dict(_Tracker(name, SAM_MODELS[name], scene, offline=False).follow([prompt(6, 43.0)]))
    assert 0.5 < (found[6] > 0).sum() / 900 < 2  # the square of 30 px


@pytest.mark.hub
def test_the_real_cotracker(clip):
    if not find_cotracker(offline=False):
        pytest.skip("GitHub is out of reach")
    tracks, _ = CoTracker().track(clip[0])
    assert len(tracks) > 100
