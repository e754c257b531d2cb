"""The frames stage: which frames, at what time, which way up, and what is refused."""

from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
from moving import texture, turn
from PIL import Image

from msdyn.errors import InputError
from msdyn.io import read_video, scan_video, write_video
from msdyn.preprocess.frames.extract import FrameOptions, write_frames
from msdyn.reading import natural_order
from msdyn.scene import Scene


def numbered(count, height=64, width=96):
    """Return frames whose brightness tells their number: frame i is grey 40 + 5 i."""
    return [np.full((height, width, 3), 40 + 5 * i, np.uint8) for i in range(count)]


def number_of(image):
    return round((float(np.median(image)) - 40) / 5)


def encode(path, frames, codec="libx264", times=None, **stream_options):
    """Write a video with PyAV, at times in seconds if given."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for name, value in stream_options.items():
            setattr(stream.codec_context, name, value)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (i / 24 if times is None else times[i]))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def video(tmp_path):
    return encode(tmp_path / "clip.mp4", numbered(24))


def run(video, directory, **options):
    record = write_frames(video, directory, FrameOptions(**options))
    return Scene(directory), record


def test_every_frame_at_its_time(video, tmp_path):
    scene, record = run(video, tmp_path / "s")
    assert len(scene) == 24 and scene.size == (64, 96)
    assert [number_of(scene.image(i)) for i in range(24)] == list(range(24))
    np.testing.assert_allclose(scene.info.timeline.seconds, np.arange(24) / 24, atol=1e-3)
    assert scene.info.fps == pytest.approx(24, rel=1e-3)
    assert record["source_frames"] == list(range(24)) and record["source_frame_count"] == 24
    assert (record["source_width"], record["source_height"]) == (96, 64)
    assert record["timestamps"] == "true" and record["source"] == "clip.mp4"


@pytest.mark.parametrize("suffix, codec", [("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_other_containers(tmp_path, suffix, codec):
    path = encode(tmp_path / f"clip.{suffix}", numbered(10), codec)
    scene, record = run(path, tmp_path / "s")
    assert [number_of(scene.image(i)) for i in range(len(scene))] == list(range(10))
    assert record["timestamps"] == "true"


def test_variable_frame_rate_keeps_true_times(tmp_path):
    times = np.array([0, 1, 2, 5, 6, 12, 13, 14]) / 24
    path = encode(tmp_path / "vfr.mp4", numbered(8), times=times)
    scene, _ = run(path, tmp_path / "s")
    np.testing.assert_allclose(scene.info.timeline.seconds, times, atol=2e-3)


def test_fps_takes_the_frames_nearest_to_a_grid(video, tmp_path):
    scene, record = run(video, tmp_path / "s", fps=8.0)
    assert record["source_frames"] == list(range(0, 24, 3))
    assert [number_of(scene.image(i)) for i in range(len(scene))] == record["source_frames"]
    np.testing.assert_allclose(scene.info.timeline.seconds, np.arange(8) / 8, atol=1e-3)
    _, record = run(video, tmp_path / "t", fps=100.0)  # more than there are
    assert record["source_frames"] == list(range(24))


def test_max_frames_are_evenly_spaced(video, tmp_path):
    scene, record = run(video, tmp_path / "s", max_frames=5)
    assert record["source_frames"] == [0, 6, 12, 17, 23]
    assert [number_of(scene.image(i)) for i in range(5)] == record["source_frames"]
    np.testing.assert_allclose(
        scene.info.timeline.seconds, np.array(record["source_frames"]) / 24, atol=1e-3
    )


def test_long_side_shrinks_and_never_enlarges(tmp_path):
    image = texture(90, 160)
    write_video(tmp_path / "v.mp4", [image] * 3, 24)
    scene, record = run(tmp_path / "v.mp4", tmp_path / "s", long_side=80)
    assert scene.size == (45, 80) and record["source_width"] == 160
    blocks = image.reshape(45, 2, 80, 2, 3).mean((1, 3))
    assert np.abs(scene.image(0) - blocks).mean() < 6
    assert run(tmp_path / "v.mp4", tmp_path / "t", long_side=999)[0].size == (90, 160)
    assert run(tmp_path / "v.mp4", tmp_path / "u", long_side=0)[0].size == (90, 160)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_honoured(tmp_path, degrees):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = (255, 0, 0)  # a red top left corner
    path = encode(tmp_path / "phone.mp4", [image] * 3)
    turn(path, degrees)
    scene, record = run(path, tmp_path / "s")
    expected = np.rot90(image, -degrees // 90)  # numpy turns anticlockwise
    assert scene.size == expected.shape[:2]
    assert (record["source_height"], record["source_width"]) == expected.shape[:2]
    assert np.abs(scene.image(1).astype(int) - expected).mean() < 4


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    aspect = Fraction(4, 3)
    path = encode(tmp_path / "dv.mp4", numbered(3), sample_aspect_ratio=aspect)
    assert run(path, tmp_path / "s")[0].size == (64, 128)


def test_a_folder_of_images(tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    for i, image in enumerate(numbered(12)):
        iio.imwrite(folder / f"shot{i}.png", image)  # shot10 comes after shot9
    (folder / "notes.txt").write_text("not an image")
    scene, record = run(folder, tmp_path / "s", folder_fps=10.0)
    assert [number_of(scene.image(i)) for i in range(12)] == list(range(12))
    np.testing.assert_allclose(scene.info.timeline.seconds, np.arange(12) / 10)
    assert record["timestamps"] == "nominal" and record["source"] == "shots"


def test_images_with_alpha_grey_or_lying_on_their_side(tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    Image.new("RGBA", (40, 80), (200, 10, 10, 99)).save(folder / "0.png")
    Image.new("L", (40, 80), 77).save(folder / "1.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to be upright
    Image.new("RGB", (80, 40), (10, 200, 10)).save(folder / "2.jpg", exif=exif)
    scene, _ = run(folder, tmp_path / "s")
    assert scene.size == (80, 40)
    assert scene.image(0)[0, 0].tolist() == [200, 10, 10]
    assert scene.image(1)[0, 0].tolist() == [77, 77, 77]
    assert np.abs(scene.image(2)[0, 0].astype(int) - (10, 200, 10)).max() < 4


def test_natural_order():
    names = ["b2", "a10", "a9", "a", "10", "9.5", "9"]
    ordered = [p.name for p in sorted(map(Path, names), key=natural_order)]
    assert ordered == ["a", "a9", "a10", "b2", "9", "9.5", "10"]


def refused(video, directory, match, **options):
    with pytest.raises(InputError, match=match) as error:
        run(video, directory, **options)
    assert "\n" not in str(error.value)
    assert not (directory / "scene.json").exists()


def test_files_that_are_no_videos_are_refused(tmp_path):
    for name in ("notes.mp4", "notes.txt"):
        (tmp_path / name).write_text("hello world\n" * 100)
        refused(tmp_path / name, tmp_path / "s", "not a video")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", tmp_path / "s", "not a video")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such file"):
        run(tmp_path / "gone.mp4", tmp_path / "s")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", tmp_path / "s", "no images in this folder")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_cut_short_is_refused_with_the_number_of_frames(tmp_path, suffix):
    path = encode(tmp_path / f"whole.{suffix}", [texture(64, 96, seed=i) for i in range(30)])
    content = path.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: int(0.6 * len(content))])
    refused(cut, tmp_path / "s", r"cut short or damaged: \d+ frames \([\d.]+ s\) decode")
    # Cut so short that its table of contents is gone.
    cut.write_bytes(content[:200])
    refused(cut, tmp_path / "s", "not a video|no frame of it decodes")


def test_one_frame_is_refused(tmp_path, video):
    one = encode(tmp_path / "one.mp4", numbered(1))
    refused(one, tmp_path / "s", "holds one frame; a moving scene needs at least 2")
    refused(video, tmp_path / "s", "one of its 24 frames is left", fps=0.5)
    folder = tmp_path / "folder"
    folder.mkdir()
    iio.imwrite(folder / "0.png", numbered(1)[0])
    refused(folder, tmp_path / "s", "holds one frame")


def test_images_of_differing_sizes_are_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    iio.imwrite(folder / "0.png", np.zeros((64, 96, 3), np.uint8))
    iio.imwrite(folder / "1.png", np.zeros((64, 90, 3), np.uint8))
    refused(folder, tmp_path / "s", "differing sizes, 90x64 here and 96x64 in 0.png")
    (folder / "1.png").write_bytes(b"nothing")
    refused(folder, tmp_path / "s", r"1\.png: not a readable image")


def test_images_too_small_are_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(2):
        iio.imwrite(folder / f"{i}.png", np.zeros((20, 96, 3), np.uint8))
    refused(folder, tmp_path / "s", "96x20 is too small; expected at least 32 pixels a side")


def test_read_video_stops_where_it_is_told(video):
    frames = list(read_video(video, [2, 5]))
    assert [number_of(frame) for frame in frames] == [2, 5]
    assert len(list(read_video(video))) == 24
    with pytest.raises(InputError, match="it has no frame 24"):
        list(read_video(video, [3, 24]))


def test_scan_video_makes_up_times_that_do_not_increase():
    from msdyn.io.video import _timestamps

    for times in ([0.0, 0.1, 0.1], [0.0, None, 0.2], [0.2, 0.1, 0.3]):
        seconds, nominal = _timestamps(times, 10.0)
        np.testing.assert_allclose(seconds, [0, 0.1, 0.2])
        assert nominal
    seconds, nominal = _timestamps([1.0, 1.5, 1.6], 10.0)
    np.testing.assert_allclose(seconds, [0, 0.5, 0.6])
    assert not nominal


def test_scan_video_of_a_whole_clip(video):
    info = scan_video(video)
    assert (info.width, info.height, info.nominal, len(info.seconds)) == (96, 64, False, 24)
