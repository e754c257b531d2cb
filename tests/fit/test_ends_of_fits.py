"""How fits end and go on: signals, edited scenes, infinite losses, full memory, locks."""

import json
import logging
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_fits import config

from msdyn.errors import InputError, ResourceError
from msdyn.fit import Fitter, fit_scene
from msdyn.fit.fingerprint import differences, fingerprint
from msdyn.geometry import Cameras
from msdyn.scene import (
    Scene,
    frame_path,
    write_cameras,
    write_depth,
    write_image,
    write_mask,
    write_tracks,
)
from msdyn.sequence import load_sequence
from msdyn.writing import LOCK, writing_to


def steps(folder):
    """Return the steps of the log's entries."""
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]


def warnings(caplog):
    found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    return [text for text in found if "poor input" not in text]


def interrupt_at(step, number=signal.SIGINT):
    """Return a callback that sends this process a signal at a step."""

    def watch(fitter):
        if fitter.step == step:
            signal.raise_signal(number)

    return watch


def test_an_interruption_saves_the_step_and_the_fit_resumes_exactly(plane_scene, tmp_path):
    whole = fit_scene(plane_scene, config(tmp_path, out=tmp_path / "whole"))
    options = config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit_scene(plane_scene, options, watch=interrupt_at(40))
    assert (tmp_path / "fit" / "checkpoint.safetensors").is_file()
    assert not (tmp_path / "fit" / LOCK).exists()
    # As of a process that was killed after its last checkpoint: with entries of later steps.
    with (tmp_path / "fit" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 60, "loss": 1}\n{"step": 8')
    first = []
    resumed = fit_scene(plane_scene, options, watch=lambda fitter: first.append(fitter.step))
    assert first == [48] and steps(tmp_path / "fit") == steps(tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_second_interruption_while_saving_keeps_the_previous_checkpoint(
    plane_scene, tmp_path, monkeypatch
):
    options = config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit_scene(plane_scene, options, watch=interrupt_at(20))
    checkpoint = tmp_path / "fit" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()

    def interrupted(path, *_, **__):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("msdyn.fit.fitter.save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_scene(plane_scene, options, watch=interrupt_at(40))
    assert checkpoint.read_bytes() == before


def test_equal_fits_give_equal_files(plane_scene, tmp_path):
    for name in ("a", "b"):
        fit_scene(plane_scene, config(tmp_path, epochs=2, out=tmp_path / name))
    for name in ("checkpoint.safetensors", "sequence.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def edit_images(scene):
    write_image(frame_path(scene.directory / "images", 2, ".png"), 255 - scene.image(2))


def edit_depth(scene):
    write_depth(scene.directory, 1, 1.01 * scene.depth(1))


def edit_confidence(scene):
    whole = np.full(scene.size, 128, np.uint8)
    write_image(frame_path(scene.directory / "depth_confidence", 0, ".png"), whole)


def edit_masks(scene):
    mask = scene.mask(3)
    mask[0, 0] = 255
    write_mask(scene.directory, 3, mask)


def edit_tracks(scene):
    write_tracks(scene.directory / "tracks.npz", scene.tracks.select(slice(0, None, 2)))


def edit_cameras(scene):
    old = scene.cameras
    k = old.intrinsics.copy()
    k[:, 0, 0] *= 1.1
    new = Cameras(k, old.cam_from_world, old.width, old.height)
    write_cameras(scene.directory / "cameras.json", new)


EDITS = {
    "images": edit_images,
    "depth": edit_depth,
    "depth_confidence": edit_confidence,
    "masks": edit_masks,
    "tracks.npz": edit_tracks,
    "cameras.json": edit_cameras,
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file_changes_the_fingerprint_by_its_name(plane_scene, tmp_path, name):
    options = config(tmp_path)
    before = fingerprint(plane_scene, options)
    assert differences(before, fingerprint(Scene(plane_scene.directory), options)) == ""
    EDITS[name](plane_scene)
    changed = differences(before, fingerprint(Scene(plane_scene.directory), options))
    assert changed == f"{name} of the scene changed"


def test_changed_options_are_named_as_on_the_command_line(plane_scene, tmp_path):
    options = config(tmp_path)
    other = replace(options, motion=replace(options.motion, levels=2), seed=3)
    before, after = (fingerprint(plane_scene, o) for o in (options, other))
    assert differences(before, after) == "--levels was 3, is 2, --seed was 0, is 3"
    same = replace(options, out=tmp_path / "x", device="auto", restart=True)
    assert differences(before, fingerprint(plane_scene, same)) == ""


@pytest.mark.parametrize("old", [None, 1, "text", [], {}, {"options": 1, "scene": {}}])
def test_fingerprints_of_other_versions(plane_scene, tmp_path, old):
    text = differences(old, fingerprint(plane_scene, config(tmp_path)))
    assert text == "the checkpoint is of another version of msdyn"


def test_a_fit_of_an_edited_scene_starts_again_and_says_why(plane_scene, tmp_path, caplog):
    options = config(tmp_path, epochs=2)
    fit_scene(plane_scene, options)
    assert not warnings(caplog)
    edit_tracks(plane_scene)
    fit_scene(Scene(plane_scene.directory), options)
    assert len(warnings(caplog)) == 1
    assert "starts again, as tracks.npz of the scene changed" in warnings(caplog)[0]


def test_a_checkpoint_of_an_older_version_is_not_resumed(plane_scene, tmp_path, caplog):
    from safetensors.torch import save_file

    options = config(tmp_path, epochs=1)
    header = json.dumps({"version": 2, "step": 3, "seconds": 1.0, "fingerprint": "[{}, {}]"})
    options.out.mkdir()
    save_file(
        {"a": torch.zeros(2)},
        options.out / "checkpoint.safetensors",
        metadata={"format": "msdyn-checkpoint", "header": header},
    )
    fit_scene(plane_scene, options)
    assert "of another version of msdyn" in warnings(caplog)[0]


@pytest.mark.parametrize("damage", ["shape", "index", "nan", "missing"])
def test_a_checkpoint_with_wrong_tensors_is_refused(plane_scene, tmp_path, damage):
    from safetensors import safe_open
    from safetensors.torch import save_file

    options = config(tmp_path, epochs=1)
    fit_scene(plane_scene, options)
    path = tmp_path / "fit" / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if damage == "shape":
        tensors["moving.param.means"] = tensors["moving.param.means"][:-1]
    elif damage == "index":
        tensors["moving.state.labels"] += 1000
    elif damage == "nan":
        tensors["static.param.means"][0] = np.nan
    else:
        del tensors["static.param.scales"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match="not a readable checkpoint .* --restart"):
        fit_scene(plane_scene, options)


def spoil(monkeypatch, when):
    """Let the depth loss of steps be NaN, once for each truth of `when(step)`."""
    step = Fitter._one_step

    def spoiled(self, frames):
        values = step(self, frames)
        if when(self.step):
            self.static.params["means"].data[0] = torch.nan
            nan = torch.tensor(torch.nan)
            return values | {"loss": nan, "depth": nan}
        return values

    monkeypatch.setattr(Fitter, "_one_step", spoiled)


def test_a_loss_that_is_not_finite_once(plane_scene, tmp_path, monkeypatch, caplog):
    left = [44]
    spoil(monkeypatch, lambda step: step in left and not left.clear())
    options = config(tmp_path)
    sequence = fit_scene(plane_scene, options)
    assert warnings(caplog) == [
        "warning: the loss depth was not finite at step 45; going on from step 40 with learning "
        "rates times 0.5"
    ]
    assert all(value.isfinite().all() for value in sequence.static.state_dict().values())
    assert steps(tmp_path / "fit") == [20, 40, 48]


def test_a_loss_that_stays_infinite_ends_the_fit_with_the_last_good_result(
    plane_scene, tmp_path, monkeypatch, caplog
):
    spoil(monkeypatch, lambda step: step == 44)
    with pytest.raises(InputError, match="the loss depth was not finite at step 45, and again"):
        fit_scene(plane_scene, config(tmp_path))
    assert len(warnings(caplog)) == 3 and "times 0.125" in warnings(caplog)[2]
    sequence = load_sequence(tmp_path / "fit")
    assert all(value.isfinite().all() for value in sequence.static.state_dict().values())
    assert steps(tmp_path / "fit") == [20, 40]
    monkeypatch.undo()
    first = []
    fit_scene(plane_scene, config(tmp_path), watch=lambda fitter: first.append(fitter.step))
    assert first == [48]


def limit_memory(monkeypatch, most):
    """Let the memory be full with more than so many frames at a time."""
    step = Fitter._one_step
    seen = []

    def limited(self, frames):
        seen.append(len(frames))
        if len(frames) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return step(self, frames)

    monkeypatch.setattr(Fitter, "_one_step", limited)
    return seen


def test_a_full_gpu_halves_the_batch(plane_scene, tmp_path, monkeypatch, caplog):
    seen = limit_memory(monkeypatch, 1)
    fit_scene(plane_scene, config(tmp_path, batch=4))
    assert [text.split(" is full ")[1] for text in warnings(caplog)] == [
        "with 4 frames per step; going on with 2",
        "with 2 frames per step; going on with 1",
    ]
    assert sum(seen) == 8 * len(plane_scene) + 4 + 2


def test_a_gpu_that_is_full_with_one_frame(plane_scene, tmp_path, monkeypatch):
    limit_memory(monkeypatch, 0)
    with pytest.raises(ResourceError, match="full with one frame per step; choose smaller images"):
        fit_scene(plane_scene, config(tmp_path))


def test_a_disk_without_space_for_the_result_is_told_before_the_first_step(
    plane_scene, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    seen = limit_memory(monkeypatch, 100)
    with pytest.raises(ResourceError, match="fit: [0-9]+ MB are needed and 0 MB are free; free"):
        fit_scene(plane_scene, config(tmp_path))
    assert not seen


def test_a_folder_that_another_process_writes_is_refused(plane_scene, tmp_path):
    from msdyn.writing.processes import own_process

    folder = plane_scene.directory / "fit"
    with writing_to(folder):
        content = json.loads((folder / LOCK).read_text())
        assert content["pid"] == own_process().pid
        (folder / LOCK).write_text(json.dumps(content | {"pid": 1, "began": 0}))
    with pytest.raises(InputError, match="process 1 on .* is writing here; wait"):
        fit_scene(plane_scene, config(tmp_path, out=None))


def test_a_fit_folder_that_is_a_link_is_refused(plane_scene, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (plane_scene.directory / "fit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="fit: is a link to .*elsewhere"):
        fit_scene(plane_scene, config(tmp_path, out=None))
    fit_scene(plane_scene, config(tmp_path, epochs=1, out=plane_scene.directory / "fit"))
    assert (tmp_path / "elsewhere" / "sequence.safetensors").is_file()


def test_a_copied_scene_resumes(plane_scene, tmp_path):
    """The content counts, not times or places of the files."""
    with pytest.raises(KeyboardInterrupt):
        fit_scene(plane_scene, config(tmp_path), watch=interrupt_at(40))
    copied = Scene(shutil.copytree(plane_scene.directory, tmp_path / "copied"))
    first = []
    fit_scene(copied, config(tmp_path), watch=lambda fitter: first.append(fitter.step))
    assert first == [48]
