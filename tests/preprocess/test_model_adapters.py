"""Every adapter of a foundation model through its real loading path, on tiny random checkpoints."""

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest
import torch
from moving import panning, texture, write_scene
from PIL import Image
from tiny_models import save_depth_anything, save_depth_pro, save_edgetam, save_sam2, save_zoedepth

from msdyn.errors import InputError, MissingExtraError
from msdyn.preprocess import find_backend
from msdyn.preprocess.checkpoints.huggingface import (
    CHECKPOINTS,
    find_checkpoint,
    licence_of,
    load_pretrained,
)
from msdyn.preprocess.checkpoints.placement import Placement, fit_size, network_input
from msdyn.preprocess.depth import depth_anything, depth_pro, zoedepth
from msdyn.preprocess.depth.networks import ModelDepth, load_network
from msdyn.preprocess.masks import sam_video
from msdyn.preprocess.masks.prompts import Prompt
from msdyn.preprocess.masks.sam_video import EdgeTamMasks, Sam2Masks, _Tracker
from msdyn.preprocess.tracks.chained_flow import FlowTracks

pytest.importorskip("transformers")
CPU = Placement("cpu", False, 1)
NETWORKS = ("depth-anything", "depth-anything-metric", "depth-pro", "zoedepth")
SEGMENTERS = {"sam2": Sam2Masks, "edgetam": EdgeTamMasks}


def default(stage, name):
    return find_backend(stage, name).model


def tracker(name, model, scene, *, offline=True):
    return _Tracker(SEGMENTERS[name], model, scene, offline=offline, device="cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of tiny checkpoints by name."""
    folder = tmp_path_factory.mktemp("tiny")
    savers = {
        "depth-anything": save_depth_anything,
        "depth-pro": save_depth_pro,
        "zoedepth": save_zoedepth,
        "sam2": save_sam2,
        "edgetam": save_edgetam,
    }
    return {name: str(save(folder / name)) for name, save in savers.items()} | {
        "depth-anything-metric": str(save_depth_anything(folder / "metric", metric=True))
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_depth_network_from_a_checkpoint(tiny, name):
    network = load_network(name, tiny[name], offline=True)
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    inverse = network.predict(images)
    assert inverse.dtype == np.float32 and len(inverse) == 2 and inverse.ndim == 3
    assert np.isfinite(inverse).all() and (inverse >= 0).all()
    assert network.metric == (name != "depth-anything")
    # A frame does not depend on the others in its batch.
    np.testing.assert_allclose(network.predict(images[1:])[0], inverse[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_depth_network_in_half_precision(tiny, name, monkeypatch):
    """As on CUDA, but on the CPU."""

    def place_half(network, megabytes, device):
        network.half()
        return Placement("cpu", True, 2)

    images = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    exact = load_network(name, tiny[name], offline=True).predict(images)
    for module in (depth_anything, depth_pro, zoedepth):
        monkeypatch.setattr(module, "place", place_half)
    half = load_network(name, tiny[name], offline=True).predict(images)
    assert half.dtype == np.float32 and half.shape == exact.shape
    np.testing.assert_allclose(half, exact, atol=0.02 * np.abs(exact).max() + 1e-5)


def test_depth_of_a_scene_by_a_checkpoint(tiny, square):
    from msdyn.geometry import Cameras
    from msdyn.preprocess.contracts import CameraSolution, SparsePoints, Verdict

    scene, tracks = square
    backend = ModelDepth("depth-anything-metric", tiny["depth-anything-metric"], offline=True)
    poses = np.tile(np.eye(4), (len(scene), 1, 1))
    cameras = Cameras.pinhole(90.0, 96, 72, poses)
    solution = CameraSolution(cameras, "static", SparsePoints.empty(), Verdict("poor", "a", "b"))
    masks = np.zeros((len(scene), 72, 96), np.uint8)
    tracks = dataclasses.replace(tracks, object=np.zeros(len(tracks)))
    maps = backend.estimate(scene, tracks, masks, solution).maps
    assert [item.depth.shape for item in maps] == [(72, 96)] * len(scene)
    quality = maps.figures
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


def test_availability_without_a_network(tiny, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a socket was opened"))
    assert find_checkpoint(tiny["sam2"], offline=True).how == "folder"
    for offline in (True, False):  # HF_HUB_OFFLINE is set in tests
        found = find_checkpoint("facebook/sam2.1-hiera-tiny", offline=offline)
        assert not found and "not on this disk" in found.why
    assert licence_of("facebook/sam2.1-hiera-tiny") == "Apache-2.0"
    assert licence_of("some/other") == "unknown (see its page)"
    for stage, names in (("depth", NETWORKS), ("masks", SEGMENTERS)):
        assert {default(stage, name) for name in names} <= set(CHECKPOINTS)


def prompt(frame, x, label=1):
    return Prompt(label, frame, np.array([[x, 35.0]]), np.array([1]), (x - 14, 20.0, x + 14, 50.0))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_masks_by_a_checkpoint_prompted_by_motion(tiny, square, name):
    scene, tracks = square
    backend = SEGMENTERS[name](name, tiny[name], offline=True)
    result = backend.segment(scene, tracks, None)
    assert not result.needs_cameras and not result.better_with_cameras
    masks, quality = list(result.masks), result.masks.figures
    assert len(masks) == len(scene)
    assert all(mask.shape == (72, 96) and mask.dtype == np.uint8 for mask in masks)
    assert set(np.unique(masks)) <= {0, 1}
    assert quality["prompted_by"] == "motion" and quality["prompts"] >= 1
    assert quality["moving_share"] == pytest.approx(np.mean([m > 0 for m in masks]), abs=1e-3)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_forgetting_and_reading_frames_late_change_nothing(tiny, square, name, monkeypatch):
    """The same session with all frames in memory and nothing dropped gives the same masks."""
    scene, _ = square
    prompts = [prompt(6, 43.0), prompt(2, 31.0, label=2), prompt(9, 52.0)]
    pruned = tracker(name, tiny[name], scene)
    found = dict(pruned.follow(prompts))
    assert sorted(found) == list(range(len(scene)))
    kept = [len(o["non_cond_frame_outputs"]) for o in
            pruned._session.output_dict_per_obj.values()]  # fmt: skip
    assert max(kept) < len(scene) - 2

    plain = tracker(name, tiny[name], scene)
    session = plain._session
    session.processed_frames = {t: session.processed_frames[t] for t in range(len(scene))}
    monkeypatch.setattr(sam_video, "forget_outputs", lambda *past: None)
    for frame, mask in plain.follow(prompts):
        np.testing.assert_array_equal(found[frame], mask)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_masks_in_half_precision(tiny, square, name, monkeypatch):
    def place_half(network, megabytes, device):
        network.half()
        return Placement("cpu", True, 1)

    monkeypatch.setattr(sam_video, "place", place_half)
    half = tracker(name, tiny[name], square[0])
    found = dict(half.follow([prompt(6, 43.0), prompt(2, 31.0, label=2)]))
    assert sorted(found) == list(range(len(square[0])))


def test_edgetam_without_timm_is_refused_in_one_line(square, tmp_path):
    """Its true backbone is of timm, which needs torchvision."""
    from safetensors.torch import save_file
    from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

    if importlib.util.find_spec("timm"):
        pytest.skip("timm is installed")
    vision = EdgeTamVisionConfig()
    assert vision.backbone_config.model_type == "timm_wrapper"
    EdgeTamVideoConfig(vision_config=vision).save_pretrained(tmp_path)
    weights = {"any": torch.zeros(1)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MissingExtraError, match="timm") as error:
        tracker("edgetam", str(tmp_path), square[0])
    assert "\n" not in str(error.value)


def test_no_object_no_network(tiny, tmp_path):
    scene = write_scene(tmp_path / "still", panning(12, (72, 96))[0])
    tracks = FlowTracks().track(scene).tracks
    masks = (
        Sam2Masks("sam2", str(tmp_path / "gone"), offline=True).segment(scene, tracks, None).masks
    )
    assert not np.stack(list(masks)).any() and masks.figures["prompts"] == 0


def real_checkpoint(stage, name, monkeypatch):
    """Return the default checkpoint of a backend; skip the test where the hub is out of reach."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    model = default(stage, name)
    if not find_checkpoint(model, offline=False):
        pytest.skip("the hub is out of reach")
    return model


@pytest.mark.hub
@pytest.mark.parametrize("name", NETWORKS)
def test_real_depth_checkpoints(name, monkeypatch):
    model = real_checkpoint("depth", name, monkeypatch)
    inverse = load_network(name, model, offline=False).predict(texture(96, 128)[None])
    assert np.isfinite(inverse).all() and inverse.std() > 0


@pytest.mark.hub
@pytest.mark.parametrize("name", SEGMENTERS)
def test_real_segmentation_checkpoints(name, square, monkeypatch):
    model = real_checkpoint("masks", name, monkeypatch)
    scene, _ = square
    found = dict(tracker(name, model, scene, offline=False).follow([prompt(6, 43.0)]))
    assert 0.5 < (found[6] > 0).sum() / 900 < 2  # the square of 30 px
