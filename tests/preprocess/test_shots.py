"""Which part of a clip is taken: cuts, shots, start and end; and clips of unusual kinds."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving import panning, texture
from PIL import Image

from msdyn.cli.preprocess import main
from msdyn.errors import InputError
from msdyn.io import read_video, write_video
from msdyn.preprocess import PreprocessConfig
from msdyn.preprocess.frames.extract import FrameOptions, write_frames
from msdyn.preprocess.frames.shots import find_cuts
from msdyn.scene import Scene

SIZE = (72, 120)


def pan(count, seed, shift=(2.0, 1.0)):
    return panning(count, SIZE, shift=shift, seed=seed)[0]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Three shots: frames 0 to 11, 12 to 21, 22 to 29, at 24 frames per second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, [*pan(12, 1), *pan(10, 2, (-1, 0)), *pan(8, 3, (0, 3))], 24)
    return path


def take(path, directory, **options):
    record = write_frames(path, directory, FrameOptions(**options))
    return Scene(directory), record


def test_a_cut_is_refused_with_its_frame_and_time(film, tmp_path, capsys):
    with pytest.raises(InputError, match=r"cut at frame 12 \(0\.50 s\)") as error:
        take(film, tmp_path / "s")
    text = str(error.value)
    assert "choose one of 3 with --shot: 1 (frames 0 to 11), 2 (frames 12 to 21)" in text
    assert main([str(film), "--out", str(tmp_path / "t")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("shot, first, last", [(1, 0, 11), (2, 12, 21), (3, 22, 29)])
def test_one_shot_is_taken(film, tmp_path, shot, first, last):
    scene, record = take(film, tmp_path / "s", shot=shot)
    assert record["source_frames"] == list(range(first, last + 1)) and record["shots"] == 3
    assert record["source_start_seconds"] == pytest.approx(first / 24, abs=1e-3)
    assert scene.info.timeline.seconds[0] == 0
    _, record = take(film, tmp_path / "t", shot=shot, max_frames=4)
    assert len(record["source_frames"]) == 4
    assert (record["source_frames"][0], record["source_frames"][-1]) == (first, last)


def test_start_and_end_leave_one_shot(film, tmp_path):
    scene, record = take(film, tmp_path / "s", start=0.5, end=0.8)
    assert record["source_frames"] == list(range(12, 20)) and record["shots"] == 1
    images = list(read_video(film, range(12, 20)))
    np.testing.assert_array_equal(scene.image(3), images[3])
    _, record = take(film, tmp_path / "t", start=0.5, end=0.8, fps=12.0)
    assert record["source_frames"] == [12, 14, 16, 18]
    with pytest.raises(InputError, match=r"0 of its frames lie .* it lasts 1\.21 s"):
        take(film, tmp_path / "u", start=5.0)
    with pytest.raises(InputError, match="shot: expected 1 to 3, got 4"):
        take(film, tmp_path / "u", shot=4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start": -1.0}, "start: expected at least 0"),
        ({"start": 2.0, "end": 1.0}, r"end: expected seconds after the start \(2\), got 1.0"),
        ({"shot": 0}, "shot: expected at least 1, got 0"),
    ],
)
def test_ranges_that_make_no_sense(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        PreprocessConfig(tmp_path / "v.mp4", **options)


def small(frames):
    return np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames])


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.lists(st.integers(3, 9), min_size=2, max_size=4))
def test_cuts_are_where_clips_were_joined(seed, lengths):
    rng = np.random.default_rng(seed)
    parts = [pan(n, seed + 7 * i, rng.uniform(-4, 4, 2)) for i, n in enumerate(lengths)]
    found = find_cuts(small(np.concatenate(parts)))
    assert found.tolist() == np.cumsum(lengths)[:-1].tolist()


def test_what_is_no_cut():
    still = pan(10, 1, (0, 0))
    assert not len(find_cuts(small(still)))
    fast = pan(10, 1, (6, 2))
    assert not len(find_cuts(small(fast)))
    flash = pan(10, 1).astype(float)
    flash[5] = 0.4 * flash[5] + 140  # a lamp
    assert not len(find_cuts(small(flash.astype(np.uint8))))
    covered = pan(10, 1)
    covered[4:7, :, :60] = texture(72, 60, seed=9)  # half of the image, suddenly
    assert not len(find_cuts(small(covered)))
    flat = np.repeat(np.arange(40, 100, 6, dtype=np.uint8), 72 * 120).reshape(10, 72, 120)
    assert not len(find_cuts(flat))
    noise = np.random.default_rng(0).integers(0, 255, (10, 72, 120), dtype=np.uint8)
    assert not len(find_cuts(noise))  # no two frames are of one shot: not a film, no cut in it


@pytest.mark.slow
def test_no_cut_in_real_clips_and_one_where_they_are_joined(shared):
    from msdyn.io import scan_video

    thumbnails = {}
    for name in ("camel", "duck", "hand"):
        info = scan_video(shared / "clips" / f"{name}.mp4", thumbnail_side=160)
        assert not len(find_cuts(info.thumbnails)), name
        assert not len(find_cuts(info.thumbnails[::3])), name
        thumbnails[name] = np.stack([cv2.resize(t, (160, 90)) for t in info.thumbnails])
    joined = np.concatenate([thumbnails["camel"][:20], thumbnails["duck"], thumbnails["hand"]])
    assert find_cuts(joined).tolist() == [20, 70]


def encode(path, frames, codec, pix_fmt, source="rgb24"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=source)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    "name, codec, pix_fmt, size",
    [
        ("ten_bits.mp4", "libx264", "yuv420p10le", (72, 120)),
        ("ten_bits.mov", "prores_ks", "yuv422p10le", (72, 120)),
        ("odd.mkv", "ffv1", "yuv444p", (71, 119)),
        ("odd.webm", "libvpx-vp9", "yuv420p", (71, 119)),
        ("alpha.mov", "qtrle", "argb", (72, 120)),
    ],
)
def test_unusual_pixels_and_sizes(tmp_path, name, codec, pix_fmt, size):
    frames = [image[: size[0], : size[1]] for image in pan(6, 1)]
    if pix_fmt == "argb":
        opaque = np.full((*size, 1), 255, np.uint8)
        stored = [np.concatenate([opaque, image], -1) for image in frames]
        path = encode(tmp_path / name, stored, codec, pix_fmt, "argb")
    else:
        path = encode(tmp_path / name, [np.ascontiguousarray(f) for f in frames], codec, pix_fmt)
    scene, record = take(path, tmp_path / "s")
    assert scene.size == size and len(scene) == 6
    # Colour is stored at half the size in most of these.
    assert np.abs(small([scene.image(3)])[0] - small([frames[3]])[0].astype(int)).mean() < 4
    np.testing.assert_allclose(scene.info.timeline.seconds, np.arange(6) / 10, atol=2e-3)


def test_a_gif(tmp_path):
    frames = [Image.fromarray(image) for image in pan(6, 1)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    scene, record = take(tmp_path / "a.gif", tmp_path / "s")
    assert len(scene) == 6 and scene.size == SIZE
    np.testing.assert_allclose(scene.info.timeline.seconds, np.arange(6) / 10, atol=1e-3)
    assert np.abs(scene.image(4).astype(int) - np.array(frames[4]).astype(int)).mean() < 12


def test_a_pattern_of_names(tmp_path, monkeypatch):
    (tmp_path / "shots").mkdir()
    for i, image in enumerate(pan(12, 1)):
        Image.fromarray(image).save(tmp_path / "shots" / f"left_{i}.png")
        Image.fromarray(image[:, ::-1]).save(tmp_path / "shots" / f"right_{i}.png")
    pattern = tmp_path / "shots" / "left_*.png"
    scene, record = take(pattern, tmp_path / "s")
    assert record["source_names"] == [f"left_{i}.png" for i in range(12)]
    np.testing.assert_array_equal(scene.image(10), pan(12, 1)[10])
    assert PreprocessConfig(pattern).directory.as_posix() == "shots_scene"
    with pytest.raises(FileNotFoundError, match="no images fit this pattern"):
        take(tmp_path / "shots" / "up_*.png", tmp_path / "t")
    monkeypatch.chdir(tmp_path / "shots")
    only = ["--only", "frames", "--long-side", "64"]
    assert main(["right_*.png", "--out", str(tmp_path / "u"), *only]) == 0
    assert Scene(tmp_path / "u").info.stages["frames"]["options"]["source"] == "right_*.png"
