"""Dynamic Replica's layout, written from a scene of known truth."""

import numpy as np
import pytest
import torch
from dataset_scene import check_cameras, check_depth, check_images, check_tracks, make_disc
from dataset_writers import write_dynamic_replica, write_jgz

from msdyn.errors import InputError
from msdyn.feedforward.data.convert import find_converter

convert = find_converter("dynamic_replica")


@pytest.mark.parametrize("norm", ["ndc_isotropic", "ndc_norm_image_bounds"])
def test_cameras_depth_and_tracks_are_those_of_the_scene(tmp_path, norm):
    scene = make_disc()
    chosen = np.flatnonzero(np.any([scene.inside(i) for i in range(3)], 0))
    hidden = np.flatnonzero(np.all([scene.inside(i) for i in range(3)], 0))[0]
    write_dynamic_replica(tmp_path, scene, norm=norm, hidden=[(1, hidden)])
    (clip,) = convert(tmp_path)
    assert clip.name == "valid_e0ff8f-3_obj_left" and clip.dataset == "dynamic_replica"
    np.testing.assert_allclose(clip.times, np.arange(3) / 30)
    check_cameras(clip, scene)
    check_depth(clip, scene)  # a float16 has 11 bits
    check_images(clip, scene)
    check_tracks(clip, scene, chosen)
    index = np.flatnonzero(chosen == hidden)[0]
    assert clip.tracks.visible[:, index].tolist() == [True, False, True]


def test_cameras_of_a_sequence_are_clips_of_their_own(tmp_path):
    left, right = make_disc(2), make_disc(1, seed=1)
    first, path = write_dynamic_replica(tmp_path, left)
    second, path = write_dynamic_replica(tmp_path, right, camera="right")
    del second[0]["trajectories"]
    write_jgz(path, first + second)
    found = {clip.name: clip for clip in convert(path.parent)}
    assert list(found) == ["valid_e0ff8f-3_obj_left", "valid_e0ff8f-3_obj_right"]
    assert [clip.motion for clip in found.values()] == ["tracks", "unknown"]
    check_depth(found["valid_e0ff8f-3_obj_left"], left)
    check_cameras(found["valid_e0ff8f-3_obj_right"], right)
    check_depth(found["valid_e0ff8f-3_obj_right"], right)


def test_cameras_without_tracks_have_unknown_motion(tmp_path):
    scene = make_disc(2)
    frames, path = write_dynamic_replica(tmp_path, scene)
    files = sorted(tmp_path.rglob("*.pth"))
    files[0].unlink()
    with pytest.raises((InputError, FileNotFoundError), match="000000.pth: no such file"):
        list(convert(tmp_path))
    files[1].unlink()
    for trajectories in (frames[0]["trajectories"], {"path": ""}, {"path": None}, None):
        for frame in frames:
            frame["trajectories"] = trajectories
        write_jgz(path, frames)
        (clip,) = convert(tmp_path)
        assert clip.motion == "unknown" and clip.tracks is None
        check_depth(clip, scene)


def viewpoint(**changes):
    return lambda frames: frames[1]["viewpoint"].update(changes)


def turned(frames):
    for frame in frames:
        frame["viewpoint"]["R"] = np.array(frame["viewpoint"]["R"]).T.tolist()


ANNOTATIONS = {
    "no viewpoint": (lambda f: f[0].pop("viewpoint"), "jgz: viewpoint: expected an object"),
    "short R": (viewpoint(R=[[1, 0, 0]]), "jgz: R: expected 3x3 numbers"),
    "text in T": (viewpoint(T=[0, "x", 0]), "jgz: T: expected 3 numbers"),
    "no rotation": (viewpoint(R=np.ones((3, 3)).tolist()), "jgz: cam_from_world: expected rot"),
    "format": (viewpoint(intrinsics_format="px"), "jgz: intrinsics_format: expected one of"),
    "two sizes": (lambda f: f[1]["image"].update(size=[1, 1]), "jgz: .*: expected images of one"),
    "scale": (lambda f: f[0]["depth"].update(scale_adjustment=2), "jgz: depth: expected scale_"),
    "outside": (lambda f: f[0]["image"].update(path="../x.png"), "jgz: image: expected a path ins"),
    "missing": (lambda f: f[0]["image"].update(path="x.png"), "valid.x.png: no such file"),
    "no path": (lambda f: f[0]["image"].pop("path"), "jgz: path: expected text, got None"),
    "one time": (lambda f: f[1].update(frame_timestamp=0), "jgz: .*expected increasing frame_tim"),
    "R transposed": (turned, "000000.pth: expected 3D tracks that project"),
    "no list": (lambda f: f.append(3), "jgz: expected a list of annotations"),
}


@pytest.mark.parametrize("change, message", ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_wrong_annotations_are_told_in_one_line(tmp_path, change, message):
    frames, path = write_dynamic_replica(tmp_path, make_disc(2))
    change(frames)
    write_jgz(path, frames)
    with pytest.raises((InputError, FileNotFoundError), match=message) as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"text", "not a readable file of tensors"),
        (
            {"traj_2d": torch.zeros(40, 3)},
            "expected tensors traj_3d_world, traj_2d, verts_inds_vis",
        ),
        (
            {k: torch.zeros(39, 3) for k in ("traj_3d_world", "traj_2d", "verts_inds_vis")},
            r"expected .*verts_inds_vis \[N\]",
        ),
        (
            {"traj_3d_world": torch.zeros(9, 3), "traj_2d": torch.zeros(9, 3)}
            | {"verts_inds_vis": torch.zeros(9)},
            "expected the 40 tracks of the sequence's first frame, got 9",
        ),
        ({"traj_3d_world": Evil()}, "not a readable file of tensors"),
    ],
)
def test_wrong_tracks_are_told_in_one_line_and_run_no_code(tmp_path, content, message):
    write_dynamic_replica(tmp_path, make_disc(2))
    path = next(tmp_path.rglob("000001.pth"))
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises((InputError, FileNotFoundError), match=f"000001.pth: {message}") as raised:
        list(convert(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_damaged_file_of_annotations(tmp_path):
    _, path = write_dynamic_replica(tmp_path, make_disc(1))
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"text"):
        path.write_bytes(damaged)
        with pytest.raises(
            (InputError, FileNotFoundError), match="jgz: not a readable gzipped JSON"
        ):
            list(convert(tmp_path))
