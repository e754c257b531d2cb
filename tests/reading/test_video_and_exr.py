"""Videos and EXR images: sizes are checked before memory, and a file names no other file."""

import resource

import av
import numpy as np
import pytest
from PIL import Image
from recording_writers import exr as packed_exr

from msdyn.errors import InputError
from msdyn.io import read_depth_map, read_video, scan_video, write_video
from msdyn.reading import opened_video, read_exr


def refused(function, path, match):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=match) as caught:
        function(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def video_refused(path, match):
    refused(scan_video, path, match)
    refused(lambda path: list(read_video(path)), path, match)


@pytest.fixture
def clip(tmp_path):
    write_video(
        tmp_path / "clip.mp4", [np.full((16, 32, 3), 9 * i, np.uint8) for i in range(6)], 24
    )
    return tmp_path / "clip.mp4"


def test_playlists_name_no_other_file(tmp_path, clip):
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n",
        "a.mp4": f"ffconcat version 1.0\nfile {clip}\n",
        "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        video_refused(tmp_path / name, "not a video")


def test_a_name_is_no_protocol(tmp_path, clip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip.rename("concat:a|b.mp4")
    assert len(scan_video("concat:a|b.mp4").seconds) == 6


@pytest.mark.parametrize("size", ["W12000 H12000", "W40000 H16", "W2147483647 H2147483647"])
def test_frames_that_are_too_large(tmp_path, size):
    path = tmp_path / "a.y4m"
    path.write_bytes(f"YUV4MPEG2 {size} F24:1 C420jpeg\nFRAME\n".encode() + bytes(100))
    video_refused(path, "expected at most|not a video|no frame of it decodes|decoding fails")


def test_a_gif_that_declares_17_gigabytes(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(np.full((16, 32), 9 * i, np.uint8)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    assert len(scan_video(path).seconds) == 3
    content = bytearray(path.read_bytes())
    content[6:10] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    video_refused(path, "expected at most|no frame of it decodes|decoding fails")


def test_thumbnails_of_narrow_frames_are_small(tmp_path):
    path = tmp_path / "a.y4m"
    frame = b"FRAME\n" + bytes(2 * 20000 * 3 // 2)
    path.write_bytes(b"YUV4MPEG2 W2 H20000 F24:1 C420jpeg\n" + 3 * frame)
    thumbnails = scan_video(path, thumbnail_side=160).thumbnails
    assert thumbnails is not None and thumbnails.shape == (3, 160, 16)


def test_pixels_of_a_shape_that_makes_frames_too_wide(tmp_path):
    path = tmp_path / "a.y4m"
    frame = b"FRAME\n" + bytes(32 * 16 * 3 // 2)
    path.write_bytes(b"YUV4MPEG2 W32 H16 F24:1 A20000:1 C420jpeg\n" + 3 * frame)
    video_refused(path, "expected at most .* px a side, got")


def test_any_failure_of_decoding_is_an_input_error(clip):
    for error in (ValueError("x"), OverflowError(), av.error.PermissionError(1, "no", "clip")):
        with pytest.raises(InputError, match=r"clip.mp4: "), opened_video(clip):
            raise error


def exr(path, width=4, height=3):
    OpenEXR = pytest.importorskip("OpenEXR")
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    OpenEXR.File({}, {"Z": depth}).write(str(path))
    content = path.read_bytes()
    window = np.array([0, 0, 3, 2], "<i4").tobytes()
    assert window in content
    path.write_bytes(
        content.replace(window, np.array([0, 0, width - 1, height - 1], "<i4").tobytes())
    )
    return depth


def test_the_library_says_nothing_of_its_own(tmp_path, capfd):
    exr(tmp_path / "a.exr")
    content = bytearray((tmp_path / "a.exr").read_bytes())
    content[-30:-10] = b"\xff" * 20
    (tmp_path / "a.exr").write_bytes(content)
    refused(read_exr, tmp_path / "a.exr", "not a readable EXR")
    assert capfd.readouterr() == ("", "")
    noise = np.random.default_rng(0).uniform(0, 1, (48, 64)).astype(np.float16)
    content = bytearray(packed_exr(noise, "Z"))
    content[-200:-150] = b"x" * 50  # in the pixels
    (tmp_path / "a.exr").write_bytes(content)
    refused(read_exr, tmp_path / "a.exr", "not a readable EXR")
    assert capfd.readouterr() == ("", "")


def test_exr(tmp_path):
    depth = exr(tmp_path / "a.exr")
    np.testing.assert_array_equal(read_exr(tmp_path / "a.exr")["Z"], depth)
    for size in ((60000, 60000), (2**31, 2**31), (0, 3), (8000, 8000), (40000, 2)):
        exr(tmp_path / "a.exr", *size)
        refused(read_depth_map, tmp_path / "a.exr", "a.exr: ")
    whole = (tmp_path / "a.exr").read_bytes()
    for cut in (0, 4, 100, len(whole) - 3):
        (tmp_path / "a.exr").write_bytes(whole[:cut])
        refused(read_depth_map, tmp_path / "a.exr", "not a readable EXR|expected at most")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_exr(tmp_path / "none.exr")
