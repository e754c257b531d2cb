"""Options of preprocessing in Python, and the backends that they name."""

import pytest

from msdyn.errors import InputError
from msdyn.preprocess import BACKEND_STAGES, STAGES, PreprocessConfig, backend_names, backends


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fps": 0.0}, "fps: expected above 0, got 0.0"),
        ({"max_frames": 1}, "max_frames: expected at least 2, got 1"),
        ({"long_side": 10}, "long_side: expected at least 64, or 0, got 10"),
        ({"depth_scale": -1.0}, "depth_scale: expected above 0"),
        ({"depth": "files"}, "depth_path: missing; depth from files need"),
        ({"depth_model": "m"}, "depth_model: given, but depth is chosen by --preset; use --depth"),
        ({"depth": "fused", "depth_model": "m"}, "depth_model: given, but depth is fused"),
        ({"masks": "motion", "prompts": "p.json"}, "prompts: given, but masks is motion"),
        ({"masks": "sam2", "prompts": "cup"}, "prompts: 'cup' is for sam3, but masks is sam2; use"),
        ({"masks": "sam3", "prompts": "cup,, pen"}, "prompts: expected noun phrases separated by"),
        ({"prompts": "a" * 101}, "prompts: expected phrases of at most 100 characters, got 101"),
        (
            {"prompts": "clicks.json"},
            "prompts: given, but masks is chosen by --preset; use --masks",
        ),
        ({"masks_path": "m"}, "masks_path: given, but masks is chosen by --preset; use --masks"),
        ({"depth": "deep"}, "depth: expected one of fused, files, depth-anything, .* got 'deep'"),
    ],
)
def test_options_that_make_no_sense(options, message, tmp_path):
    if "masks_path" in options:
        options = {"masks_path": tmp_path}
    with pytest.raises(InputError, match=message):
        PreprocessConfig(tmp_path / "v.mp4", **options)


def test_every_stage_has_backends(tmp_path):
    for stage in BACKEND_STAGES:
        assert "files" in backend_names(stage)
        for name, spec in backends(stage).items():
            if name == "feedforward":  # tests/feedforward/test_backends.py
                continue
            config = PreprocessConfig(
                tmp_path / "v.mp4",
                **{stage: name},
                **({f"{stage}_path": tmp_path} if name == "files" else {}),
            )
            backend = spec.make(config.options_of(stage))
            assert backend.name == name and backend.model == spec.model
            assert (backend.licence is None) == (spec.model is None)
            assert set(spec.needs) <= set(STAGES[: STAGES.index(stage)])


def test_the_default_directory_is_named_after_the_video(tmp_path):
    assert PreprocessConfig(tmp_path / "a" / "street.mov").directory.as_posix() == "street"
    (tmp_path / "shots.1").mkdir()
    assert PreprocessConfig(tmp_path / "shots.1").directory.as_posix() == "shots.1_scene"
