"""Whole videos are read, however they begin and end; those cut short are refused."""

from fractions import Fraction

import av
import numpy as np
import pytest
from moving import texture
from PIL import Image

from msdyn.errors import InputError
from msdyn.io import read_video, scan_video

COUNT = 12


def numbered(count=COUNT, height=64, width=96):
    """Return textured frames whose mean brightness tells their number."""
    detail = texture(height, width).astype(int) // 8
    return [(40 + 8 * i + detail).astype(np.uint8) for i in range(count)]


def encode(path, frames, times, codec="libx264", last=None, start=0.0, **options):
    """Write a video with frames at times in seconds, the last one held for `last` seconds."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (start + time))
            packets += stream.encode(frame)
        packets += stream.encode()
        latest = max(packet.pts for packet in packets)
        for packet in packets:
            if last is not None and packet.pts == latest:
                packet.duration = round(last / packet.time_base)
            container.mux(packet)
    return path


def even(count=COUNT):
    return np.arange(count) / 24


def whole(path, count=COUNT):
    info = scan_video(path)
    assert len(info.seconds) == count and info.seconds[0] == 0
    frames = list(read_video(path))
    assert len(frames) == count
    brightness = [frame.mean() for frame in frames]
    assert (np.diff(brightness) > 4).all()
    return info


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("last, start", [(None, 0.0), (3.0, 0.0), (None, 5.0), (2.0, 5.0)])
def test_a_last_frame_that_is_held_and_a_late_start(tmp_path, suffix, last, start):
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    path = encode(tmp_path / f"v.{suffix}", numbered(), even(), codec, last=last, start=start)
    np.testing.assert_allclose(whole(path).seconds, even(), atol=2e-3)


def test_a_gif_whose_last_frame_is_held(tmp_path):
    images = [Image.fromarray(image).quantize(128) for image in numbered()]
    images[0].save(
        tmp_path / "v.gif", save_all=True, append_images=images[1:], duration=[40] * 11 + [3000]
    )
    np.testing.assert_allclose(whole(tmp_path / "v.gif").seconds, np.arange(12) * 0.04, atol=1e-6)


def test_b_frames_and_their_edit_list(tmp_path):
    path = encode(tmp_path / "v.mp4", numbered(24), even(24), bf="3", g="24", refs="3")
    whole(path, 24)


def test_frames_that_an_edit_list_leaves_out(tmp_path):
    """A phone's trimmed clip: the samples before the cut are in the file, but not played."""
    path = encode(tmp_path / "v.mp4", numbered(24), even(24), bf="0", g="24")
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 4  # version and flags, count, duration, media time, rate
    assert int.from_bytes(content[at + 4 : at + 8], "big") == 1
    duration = int.from_bytes(content[at + 8 : at + 12], "big")
    scale = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4], "big")
    content[at + 8 : at + 12] = (duration // 2).to_bytes(4, "big")
    content[at + 12 : at + 16] = (scale // 2).to_bytes(4, "big")  # half a second is left out
    path.write_bytes(content)
    info = scan_video(path)
    assert 11 <= len(info.seconds) <= 13
    assert next(iter(read_video(path))).mean() > numbered(24)[10].mean()


def test_a_recording_that_begins_between_key_frames(tmp_path):
    path = encode(tmp_path / "v.ts", numbered(24), even(24), g="8", bf="0", keyint_min="8")
    with av.open(str(path)) as old, av.open(str(tmp_path / "cut.ts"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.dts is not None and number >= 3:
                packet.stream = stream
                new.mux(packet)
    info = scan_video(tmp_path / "cut.ts")
    frames = list(read_video(tmp_path / "cut.ts"))
    assert len(info.seconds) == len(frames) >= 16
    assert abs(frames[-1].mean() - numbered(24)[-1].mean()) < 4


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "gif"])
def test_videos_cut_short_are_still_refused(tmp_path, suffix, share):
    path = tmp_path / f"v.{suffix}"
    images = [texture(64, 96, seed=i) for i in range(30)]
    if suffix == "gif":
        first, *rest = [Image.fromarray(image).quantize(128) for image in images]
        first.save(path, save_all=True, append_images=rest, duration=40)
    else:
        codec = "libvpx-vp9" if suffix == "webm" else "libx264"
        encode(path, images, even(30), codec, last=3.0, start=2.0)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cut short|no frame of it decodes") as error:
        scan_video(path)
    assert "\n" not in str(error.value)
