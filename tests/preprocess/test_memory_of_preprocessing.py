"""Estimates of preprocessing, refusals before the work, and the end of a stage beyond the limit."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from small_clip import FRAMES, SIZE

from msdyn.cli.preprocess import main
from msdyn.errors import ResourceError
from msdyn.memory import bytes_of
from msdyn.preprocess import PreprocessConfig, estimate, pipeline, preprocess_video
from msdyn.preprocess.checkpoints.huggingface import Availability
from msdyn.preprocess.chosen_backends import Backends
from msdyn.preprocess.estimate import (
    ClipSize,
    announce_preprocessing,
    estimate_preprocessing,
    expected_clip,
    smaller_clips,
    uses_saliency,
)
from msdyn.preprocess.stages import BACKEND_STAGES
from msdyn.scene import check_scene, write_image

LARGE = ClipSize(400, 1920, 1080, 400, 1920 * 1080)


@pytest.fixture(autouse=True)
def without_report(monkeypatch):
    monkeypatch.setattr(pipeline, "write_report", lambda scene, points: None)


@pytest.mark.parametrize(
    "changes, frames, size",
    [
        ({}, FRAMES, (96, 72)),
        ({"max_frames": 5}, 5, (96, 72)),
        ({"fps": 12.0}, FRAMES // 2, (96, 72)),
        ({"long_side": 64}, FRAMES, (64, 48)),
        ({"start": 0.25}, FRAMES // 2, (96, 72)),
        ({"end": 0.25, "long_side": 0}, FRAMES // 2, (96, 72)),
    ],
)
def test_what_a_video_declares(clip, changes, frames, size):
    found = expected_clip(PreprocessConfig(clip / "clip.mp4", **changes))
    assert found is not None and (found.width, found.height) == size
    assert abs(found.frames - frames) <= 1
    assert (found.source_frames, found.source_pixels) == (FRAMES, SIZE[0] * SIZE[1])


def test_what_a_folder_of_images_declares(tmp_path):
    for number in range(7):
        write_image(tmp_path / f"{number}.png", np.zeros((60, 80, 3), np.uint8))
    for video in (tmp_path, tmp_path / "*.png"):
        found = expected_clip(PreprocessConfig(video, out=tmp_path / "scene"))
        assert found == ClipSize(7, 80, 60, 7, 4800)


@pytest.mark.parametrize("content", [None, b"", b"no video"])
def test_a_file_that_cannot_be_read_has_no_estimate(tmp_path, content):
    """Reading it says why, later."""
    if content is not None:
        (tmp_path / "clip.mp4").write_bytes(content)
    config = PreprocessConfig(tmp_path / "clip.mp4", max_memory="1M")
    assert expected_clip(config) is None
    announce_preprocessing(config)
    (tmp_path / "empty").mkdir()
    assert expected_clip(replace(config, video=tmp_path / "empty")) is None


def test_larger_clips_take_more():
    base = estimate_preprocessing(LARGE, saliency=False)
    for more in ({"frames": 500}, {"width": 3840, "height": 2160}):
        other = estimate_preprocessing(replace(LARGE, **more), saliency=False)
        assert other.memory > base.memory and other.disk > base.disk
        assert (other.seconds or 0) > (base.seconds or 0)


@pytest.mark.parametrize("available", [True, False])
def test_the_network_for_salient_objects_counts_where_it_is_used(available, monkeypatch, tmp_path):
    found = Availability("cached" if available else "no", "for the test")
    monkeypatch.setattr(estimate, "saliency_availability", lambda offline: found)
    config = PreprocessConfig(tmp_path / "clip.mp4", masks="motion")
    assert uses_saliency(config) == available
    assert not uses_saliency(replace(config, masks="none"))
    assert not uses_saliency(replace(config, saliency="off"))
    used, without = (estimate_preprocessing(LARGE, saliency=value) for value in (True, False))
    assert used.memory - without.memory > 300e6 and used.disk == without.disk


def test_what_is_named_fits(tmp_path):
    config = PreprocessConfig(tmp_path / "clip.mp4", long_side=0)
    limit = bytes_of("2G")
    assert estimate_preprocessing(LARGE, saliency=False).memory > limit
    names = [n for n, e in smaller_clips(LARGE, config) if e.memory <= limit]
    assert names and all(name.startswith(("--long-side", "--max-frames")) for name in names)
    assert "--long-side 1920" not in dict(smaller_clips(LARGE, config))


def test_a_clip_that_would_need_more_is_refused_before_it_is_read(config, ran, capsys):
    arguments = [str(config.video), "--out", str(config.out), "--max-memory", "50M"]
    assert main(arguments) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: preprocessing: about ")
    assert error.endswith("more than --max-memory 50M; a machine with more memory is needed\n")
    assert not ran and not (config.out / "images").exists()


def test_a_stage_that_holds_more_ends_and_the_next_run_goes_on(config, ran, monkeypatch):
    preprocess_video(replace(config, out=config.out.with_name("whole")))
    ran.clear()
    monkeypatch.setattr("msdyn.memory._PERIOD", 0.0)
    monkeypatch.setattr(
        "msdyn.memory.held_memory", lambda: 50 * 10**9 if "tracks" in ran else 10**8
    )
    with pytest.raises(ResourceError, match="50 GB of memory are in use, more than --max-memory"):
        preprocess_video(replace(config, max_memory="40G"))
    assert ran == ["frames", "tracks"]
    ran.clear()
    scene = preprocess_video(replace(config, max_memory="60G"))
    assert "frames" not in ran
    check_scene(scene)
    for name in ("tracks.npz", "masks/00003.png", "depth/00003.npy", "images/00003.png"):
        whole = config.out.with_name("whole") / name
        assert (config.out / name).read_bytes() == whole.read_bytes(), name


def test_what_is_up_to_date_has_no_estimate(config, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    preprocess_video(config)
    assert capsys.readouterr().err.startswith("preprocessing: about ")
    preprocess_video(config)
    assert "about" not in capsys.readouterr().err


def test_backends_end_with_the_run(config, monkeypatch):
    """What they hold, such as networks, is given back at once, not by a later collection."""
    made = []

    class Watched(Backends):
        @classmethod
        def of(cls, config):
            backends = super().of(config)
            made.extend(weakref.ref(backends.info(stage)) for stage in BACKEND_STAGES)
            return backends

    monkeypatch.setattr(pipeline, "Backends", Watched)
    gc.collect()
    gc.disable()
    try:
        preprocess_video(config)
        assert len(made) == 4 and [ref() for ref in made] == [None] * 4
    finally:
        gc.enable()
