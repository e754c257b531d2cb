"""Masks by phrases: a tiny random SAM 3 on its real loading path, and a network of known masks."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from moving import panning, paste, texture, write_scene
from safetensors import safe_open
from tiny_models import save_sam3

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.preprocess.checkpoints import huggingface
from msdyn.preprocess.masks import sam3_video
from msdyn.preprocess.masks.sam3_video import PhraseFinder, Sam3Masks
from msdyn.preprocess.tracks.chained_flow import FlowTracks
from msdyn.scene import Scene, stamp_stage

transformers = pytest.importorskip("transformers")
SIZE, FRAMES = (72, 96), 4
LOGITS = 48


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_sam3(tmp_path_factory.mktemp("tiny") / "sam3"))


@pytest.fixture(scope="module")
def shot():
    """Two squares that move over a panned background [T, H, W, 3], and their masks [T, 2, H, W]."""
    frames, _ = panning(FRAMES, SIZE)
    images, masks = [], []
    for t, behind in enumerate(frames):
        one, first = paste(behind, texture(24, 24, seed=4), (6 + 3 * t, 10))
        both, second = paste(one, texture(26, 26, seed=5), (60 - 2 * t, 40))
        images.append(both)
        masks.append([first, second])
    return np.stack(images), np.array(masks)


@pytest.fixture(scope="module")
def scene(tmp_path_factory, shot):
    scene = write_scene(tmp_path_factory.mktemp("squares") / "scene", shot[0])
    options = dict(scene.info.stages["frames"]["options"])
    options |= {"source_frames": list(range(FRAMES)), "source_frame_count": FRAMES}
    options |= {"source_width": SIZE[1], "source_height": SIZE[0]}
    stamp_stage(
        scene.directory, "frames", backend="video", options=options, input_hash="f", seconds=0.0
    )
    return Scene(scene.directory)


class Known(torch.nn.Module):
    """A network that finds known masks.

    `answers` has for each frame the objects by number, each a mask [H, W]; the objects of phrase i
    are 10 i, 10 i + 1, ...
    """

    low_res_mask_size = LOGITS

    def __init__(self, answers, removed=None, suppressed=None):
        super().__init__()
        tracker = SimpleNamespace(num_maskmem=2, max_object_pointers_in_encoder=2)
        self.config = SimpleNamespace(image_size=32, tracker_config=tracker)
        self.answers, self.removed, self.suppressed = answers, removed or {}, suppressed or {}
        self.inputs, self.phrases = [], None

    def forward(self, inference_session, frame_idx):
        self.inputs.append(inference_session.get_frame(frame_idx))
        self.phrases = dict(inference_session.prompts)
        masks = {}
        for number, mask in self.answers[frame_idx].items():
            inference_session.obj_id_to_prompt_id[number] = number // 10
            logits = torch.from_numpy(np.where(mask, 8.0, -8.0))[None, None]
            masks[number] = torch.nn.functional.interpolate(logits, (LOGITS, LOGITS))[0]
        removed = {n for n, frame in self.removed.items() if frame <= frame_idx}
        return SimpleNamespace(
            obj_id_to_mask={n: m for n, m in masks.items() if n not in removed},
            removed_obj_ids=removed,
            suppressed_obj_ids=set(self.suppressed.get(frame_idx, ())),
        )


@pytest.fixture
def known(monkeypatch):
    """Let the text network be one of known masks."""

    def use(answers, **more):
        network = Known(answers, **more)
        monkeypatch.setattr(sam3_video, "load_pretrained", lambda *a, **k: network)
        tokens = (torch.zeros(1, 32, dtype=torch.int64), torch.ones(1, 32, dtype=torch.int64))
        monkeypatch.setattr(
            sam3_video, "_tokens", lambda m, phrases, offline: [tokens] * len(phrases)
        )
        return network

    return use


def segmented(scene, backend):
    result = backend.segment(scene, FlowTracks().track(scene).tracks, None)
    masks = np.stack(list(result.masks))
    return masks, result.masks.figures


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_objects_of_a_network_of_known_masks(known, scene, shot, caplog):
    squares = shot[1]
    ghost = np.zeros(SIZE, bool)
    ghost[:8, 80:] = True
    answers = [{10: a, 0: b, 20: ghost} for a, b in squares]
    answers[0] = {10: squares[0, 0]}  # the other one appears later
    network = known(answers, removed={20: 3}, suppressed={1: {10}})
    phrases = ("mug", "gripper", "pen", "cat")
    masks, figures = segmented(scene, Sam3Masks("sam3", "m", phrases=phrases, offline=True))
    assert list(network.phrases.values()) == list(phrases)
    assert figures["names"] == {1: "mug", 2: "gripper"} and figures["prompted_by"] == "phrases"
    assert figures["unmatched"] == ["pen", "cat"]  # what was removed later was none
    assert "nothing in the clip is a 'pen'" in caplog.text
    for t, (first, second) in enumerate(squares):
        expected = [(1, second, t > 0), (2, first, t != 1)]
        for label, mask, visible in expected:
            assert overlap(masks[t] == label, mask) > 0.8 if visible else label not in masks[t]
    assert figures["object_share"] == pytest.approx((masks > 0).mean(), abs=1e-3)


def test_input_is_that_of_the_processor(known, scene, shot):
    """Resized, and scaled to -1 .. 1: in transformers by torchvision, here of a constant image."""
    network = known([{}] * FRAMES)
    list(PhraseFinder("m", scene, ("mug",), offline=True, device="cpu").find())
    image = network.inputs[2]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    expected = shot[0][2].mean((0, 1)) / 255 * 2 - 1
    np.testing.assert_allclose(image.mean((1, 2)), expected, atol=0.01)
    standard = transformers.image_utils
    assert Sam3Masks.mean == tuple(standard.IMAGENET_STANDARD_MEAN)
    assert Sam3Masks.std == tuple(standard.IMAGENET_STANDARD_STD)


def test_clicks_and_phrases_in_one_file(known, scene, shot, tmp_path, monkeypatch):
    squares = shot[1]
    both = squares[:, 0] | squares[:, 1]
    known([{0: first, 1: rest} for first, rest in zip(squares[:, 0], squares[:, 1], strict=True)])
    prompts = [{"text": "square"}, {"object": 4, "frame": 0, "box": [6, 10, 30, 34], "text": "tag"}]
    (tmp_path / "p.json").write_text(json.dumps({"prompts": prompts}))

    def follow(self, scene, clicks, figures):
        assert [prompt.object for prompt in clicks] == [4]
        yield from (np.where(mask, 4, 0).astype(np.uint8) for mask in squares[:, 0])

    monkeypatch.setattr(Sam3Masks, "_follow", follow)
    backend = Sam3Masks("sam3", "m", path=tmp_path / "p.json", offline=True)
    masks, figures = segmented(scene, backend)
    # One of the squares that the phrase finds is the clicked one, and that has its name.
    assert figures["names"] == {1: "tag", 2: "square"} and figures["prompted_by"] == "file"
    for t in range(FRAMES):
        assert overlap(masks[t] == 1, squares[t, 0]) > 0.95
        assert overlap(masks[t] == 2, squares[t, 1]) > 0.8
        assert overlap(masks[t] > 0, both[t]) > 0.85


def test_a_phrase_is_refused_by_networks_without_text(scene, tmp_path):
    from msdyn.preprocess.masks.sam_video import Sam2Masks

    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"text": "red mug"}]))
    with pytest.raises(
        InputError, match=r"'red mug' is for a network that takes text; use --masks"
    ):
        segmented(scene, Sam2Masks("sam2", "m", path=path))


def test_masks_stay_with_their_objects_where_one_is_removed(tiny):
    """In the network's own code, in the frame in which it removes an object."""
    kind = transformers.Sam3VideoModel
    rows = torch.stack([torch.full((4, 4), float(i)) for i in range(3)])
    plan = {"new_det_out_inds": [], "new_det_obj_ids": [], "obj_ids_newly_removed": {5}}

    def outputs(session, network):
        for number in (5, 6, 8):
            session.obj_id_to_idx(number)
        kind.run_tracker_update_execution_phase(network, session, 0, {}, plan)
        return kind.build_outputs(network, session, {}, rows, plan)

    session = transformers.Sam3VideoInferenceSession(dtype=torch.float32)
    with sam3_video._removed_afterwards(session):
        found = outputs(session, SimpleNamespace())
    assert {n: float(m[0, 0, 0]) for n, m in found.items()} == {5: 0.0, 6: 1.0, 8: 2.0}
    assert session.obj_ids == [6, 8] and set(session.output_dict_per_obj) == {0, 1}
    assert [session.obj_id_to_idx(n) for n in (6, 8)] == [0, 1]


def test_a_checkpoint_finds_objects_and_keeps_little(tiny, scene):
    finder = PhraseFinder(tiny, scene, ("red mug", "cup"), offline=True, device="cpu")
    found = list(finder.find())
    assert len(found) == FRAMES and set(finder.phrase_of.values()) == {0, 1}
    for one in found:
        assert one.logits.shape == (len(one.ids), 32, 32) and np.isfinite(one.logits).all()
    outputs = finder._session.output_dict_per_obj.values()
    kept = [output for o in outputs for part in o.values() for output in part.values()]
    assert kept and not any("high_res_masks" in output for output in kept)


def test_the_tracker_is_that_of_the_same_checkpoint(tiny, scene, tmp_path):
    """Clicks go to its tracker alone, which is loaded from the same file."""
    prompts = {"prompts": [{"object": 1, "frame": 1, "points": [[18, 20]], "text": "tag"}]}
    (tmp_path / "p.json").write_text(json.dumps(prompts))
    backend = Sam3Masks("sam3", tiny, path=tmp_path / "p.json", offline=True)
    masks, figures = segmented(scene, backend)
    assert masks.shape == (FRAMES, *SIZE) and set(np.unique(masks)) <= {0, 1}
    assert figures["names"] == {1: "tag"}
    part = huggingface.load_pretrained("Sam3TrackerVideoModel", tiny, offline=True).state_dict()
    key = "mask_decoder.iou_token.weight"
    with safe_open(f"{tiny}/model.safetensors", "pt") as whole:
        (stored,) = (name for name in whole.keys() if name.endswith(f"tracker_model.{key}"))
        assert torch.equal(part[key], whole.get_tensor(stored))


@pytest.mark.reliability
def test_half_precision(tiny, scene, monkeypatch):
    """As on CUDA, but on the CPU."""
    from msdyn.preprocess.checkpoints.placement import Placement

    def place_half(network, megabytes, device):
        network.half()
        return Placement("cpu", True, 1)

    exact = list(PhraseFinder(tiny, scene, ("cup",), offline=True, device="cpu").find())
    monkeypatch.setattr(sam3_video, "place", place_half)
    half = list(PhraseFinder(tiny, scene, ("cup",), offline=True, device="cpu").find())
    assert len(half) == FRAMES and half[0].ids == exact[0].ids
    differ = (half[0].logits > 0) != (exact[0].logits > 0)
    assert differ.mean() < 0.02


def test_a_phrase_too_long_for_the_network_is_refused_in_one_line(tiny, scene):
    with pytest.raises(InputError, match=r"has \d+ tokens, expected at most 30") as error:
        PhraseFinder(tiny, scene, ("abcde " * 8,), offline=True, device="cpu")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer(tiny, scene, tmp_path):
    transformers.Sam3VideoConfig.from_pretrained(tiny).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"has no tokenizer \(CLIPTokenizer\)") as error:
        PhraseFinder(str(tmp_path), scene, ("cup",), offline=True, device="cpu")
    assert "\n" not in str(error.value)


@pytest.fixture
def files(clip):
    """Arguments of the command for the small clip, with cameras and depth from files."""
    cameras = ["--cameras", "files", "--cameras-path", str(clip / "cameras.json")]
    depth = ["--depth", "files", "--depth-path", str(clip / "depth")]
    return [str(clip / "clip.mp4"), *cameras, *depth, "--end", "0.14"]


def test_the_command_from_a_clip_to_named_objects(tiny, files, tmp_path, capsys):
    arguments = [*files, "--out", str(tmp_path / "s"), "--accept-poor"]
    arguments += ["--prompts", "cup, red mug", "--masks-model", tiny]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "masks by sam3: takes the phrases of --prompts" in out
    scene = Scene(tmp_path / "s")
    names = scene.object_names
    assert names and set(names.values()) <= {"cup", "cup 1", "cup 2", "red mug"}
    assert set(np.unique(scene.masks())) - {0, 255} == set(names)
    record = scene.info.stages["masks"]
    assert record["options"]["phrases"] == ["cup", "red mug"] and record["model"] == tiny
    assert f"note: objects: {', '.join(f'{i} {n}' for i, n in names.items())}" in out
    report = (tmp_path / "s/preprocess_report.html").read_text()
    assert all(f"{label} {name}" in report for label, name in names.items())
    before = record["input_hash"]
    assert main(arguments) == 0  # nothing to do
    again = [a if a != "cup, red mug" else "Cup, red  mug" for a in arguments]
    assert main(again) == 0
    assert Scene(tmp_path / "s").info.stages["masks"]["input_hash"] != before


def test_where_nothing_is_found_the_command_ends_with_3(known, files, tmp_path, capsys):
    known([{}] * FRAMES)
    arguments = [*files, "--out", str(tmp_path / "s"), "--masks", "sam3", "--prompts", "cat, dog"]
    assert main(arguments) == 3
    error = capsys.readouterr().err
    assert "nothing in it is a cat or a dog" in error.splitlines()[-1]
    assert main(arguments) == 3  # and again, without the network
    assert "nothing in it is a cat" in capsys.readouterr().err
    assert main([*arguments, "--accept-poor"]) == 0
    assert not Scene(tmp_path / "s").masks().any()


def test_an_object_without_a_track_is_named(known, files, tmp_path, caplog):
    """Of a flat patch, which no point can be followed on."""
    corner = np.zeros(SIZE, bool)
    corner[:3, :3] = True
    square = np.zeros(SIZE, bool)
    square[24:46, 14:38] = True
    known([{0: corner, 10: square}] * FRAMES)
    arguments = [*files, "--out", str(tmp_path / "s"), "--accept-poor"]
    main([*arguments, "--masks", "sam3", "--prompts", "screw, box"])
    assert "object(s) 1 (screw) have no track and are ignored" in caplog.text
    assert Scene(tmp_path / "s").object_names == {1: "box"}
    assert (Scene(tmp_path / "s").mask(0)[0, 0], Scene(tmp_path / "s").mask(0)[35, 26]) == (255, 1)


def gated(*args, **kwargs):
    from huggingface_hub.errors import GatedRepoError

    response = SimpleNamespace(headers={}, request=None, status_code=401)
    raise GatedRepoError("401 Client Error", response=response)


def test_a_gated_checkpoint_says_what_to_do(files, tmp_path, capsys, monkeypatch):
    import huggingface_hub

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", gated)
    arguments = [*files, "--out", str(tmp_path / "s"), "--prompts", "cup"]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "https://huggingface.co/facebook/sam3 first" in lines[0]
    assert "hf auth login" in lines[0] and "--masks-model FOLDER" in lines[0]
    assert main([*arguments, "--preset", "offline"]) == 2
    assert "nothing is fetched with --preset offline" in capsys.readouterr().err
    # The same where the backend is named, and the loader meets it.
    monkeypatch.setattr(transformers.CLIPTokenizer, "from_pretrained", gated)
    with pytest.raises(InputError, match="hf auth login"):
        huggingface.load_tokenizer("CLIPTokenizer", "facebook/sam3", offline=False)
    monkeypatch.setattr(transformers.Sam3VideoModel, "from_pretrained", gated)
    with pytest.raises(InputError, match="licence must be accepted"):
        huggingface.load_pretrained("Sam3VideoModel", "facebook/sam3", offline=False)


def test_names_of_a_file_of_somebody_else(scene, tmp_path):
    folder = shutil.copytree(scene.directory, tmp_path / "s")
    names = {"1": "cup", "0": "static", "x": "no", "²": "no", "255": "ignore", "9" * 40: "no"}
    quality = {"objects": 1, "names": names}
    stamp_stage(folder, "masks", backend="sam3", options={}, input_hash="m", seconds=0.0,
                quality=quality)  # fmt: skip
    assert Scene(folder).object_names == {1: "cup"}
    assert Scene(scene.directory).object_names == {}
    stamp_stage(folder, "masks", backend="sam3", options={}, input_hash="m", seconds=0.0,
                quality={"names": ["cup"]})  # fmt: skip
    with pytest.raises(InputError, match=r"stages.masks.quality.*names"):
        Scene(folder)
